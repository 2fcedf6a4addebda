"""Names of adaptations, of metrics that select one, and of aggregations of views, without torch."""

# Adapters of peft, by the names that components/shared/models/adapters.py gives to their variants.
ADAPTERS = ("lora", "dora", "rslora", "pissa", "olora", "doran", "loha", "lokr", "vera", "randlora")
# Of the views' margins into the image's; `components.shared.models.aggregation` computes them.
AGGREGATIONS = ("max", "topk_mean", "lse", "noisy_or", "attention")
FROZEN = "frozen"  # the backbone stays as it is; heads learn on its features
MODES = (FROZEN, "full", *ADAPTERS)
# The sign makes larger better.
_SIGNS = {"val_select/nll": -1, "val_select/auroc": 1, "val_select/mcc": 1, "val_select/acc": 1}
MONITORS = tuple(_SIGNS)


def monitored(monitor: str, value: float) -> float:
    """Return a value of `monitor` such that larger is better."""
    return _SIGNS.get(monitor, 1) * value
