"""The direction of the metrics that select a model."""

from components.shared.contracts.adaptations import monitored


def test_larger_is_better_whatever_the_metric() -> None:
    assert monitored("val_select/nll", 0.2) == -0.2
    assert monitored("val_select/acc", 0.9) == 0.9
    assert monitored("score", -3.0) == -3.0
