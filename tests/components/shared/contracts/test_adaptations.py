"""The direction of the metrics that select a model."""

from components.shared.contracts.adaptations import monitored


def test_larger_is_better_whatever_the_metric() -> None:
    metrics = {"val_select/nll": 0.2, "val_select/acc": 0.9, "score": -3.0}
    assert monitored(metrics, "val_select/nll") == -0.2
    assert monitored(metrics, "val_select/acc") == 0.9
    assert monitored(metrics, "score") == -3.0
