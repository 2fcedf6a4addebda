"""Names of the adaptations of a backbone and of the metrics that select one, without torch."""

# Adapters of peft, by the names that components/shared/models/adapters.py gives to their variants.
ADAPTERS = ("lora", "dora", "rslora", "pissa", "olora", "doran", "loha", "lokr", "vera", "randlora")
MODES = ("frozen", "full", *ADAPTERS)
MONITORS = ("val_select/acc", "val_select/mcc", "val_select/auroc")
