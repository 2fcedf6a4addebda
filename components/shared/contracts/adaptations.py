"""Names of the adaptations of a backbone and of the metrics that select one, without torch."""

from collections.abc import Mapping

# Adapters of peft, by the names that components/shared/models/adapters.py gives to their variants.
ADAPTERS = ("lora", "dora", "rslora", "pissa", "olora", "doran", "loha", "lokr", "vera", "randlora")
MODES = ("frozen", "full", *ADAPTERS)
# The sign makes larger better.
_SIGNS = {"val_select/nll": -1, "val_select/auroc": 1, "val_select/mcc": 1, "val_select/acc": 1}
MONITORS = tuple(_SIGNS)


def monitored(metrics: Mapping[str, float], monitor: str) -> float:
    """Return the value by which `monitor` selects, larger is better."""
    return _SIGNS.get(monitor, 1) * metrics[monitor]
