"""How far into the backbone may training reach, and by which metric is a model chosen? Names,
without torch.
"""

# Adapters of peft, by the names that components/shared/models/adapters.py gives to their variants.
ADAPTERS = ("lora", "dora", "rslora", "pissa", "olora", "doran", "loha", "lokr", "vera", "randlora")
MODES = ("frozen", "full", *ADAPTERS)
MONITORS = ("val_select/acc", "val_select/mcc", "val_select/auroc")
MONITOR_HELP = "Metric on VAL_SELECT that chooses the epoch, and the adaptation."
