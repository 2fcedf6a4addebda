"""Kinds of images that the phases run in.

`pipelines` replaces a kind by the image of exactly the phase's sources.
"""

# Libraries of the steps without torch, and of those with it: images/<kind>/requirements.txt.
CPU = "streetvision/cpu"
TRAINER = "streetvision/trainer"
