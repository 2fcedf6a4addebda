"""Which image does each component run in?"""

CPU_IMAGE = "streetvision-cpu:dev"
TRAINER_IMAGE = "streetvision-trainer:dev"
