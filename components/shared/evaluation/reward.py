"""What would the deployment pay? The scoring contract of the NATIX StreetVision network (METHODS: reward)."""

import numpy as np

from components.shared.evaluation.metrics import Bools, mcc

_MCC_WINDOW, _ACCURACY_WINDOW, _EXPONENT = 100, 10, 3


def reward(truth: Bools, decision: Bools) -> float:
    """(0.5 max(0, MCC of the last 100) + 0.5 accuracy of the last 10) ** 3 of one sequence, oldest first."""
    recent = slice(-_ACCURACY_WINDOW, None)
    accuracy = float((truth[recent] == decision[recent]).mean())
    matthews = max(0.0, float(mcc(truth[-_MCC_WINDOW:], decision[-_MCC_WINDOW:])))
    return (0.5 * matthews + 0.5 * accuracy) ** _EXPONENT


def expected_reward(truth: Bools, decision: Bools, *, n_sequences: int, seed: int) -> float:
    """Mean reward over simulated sequences of 100 images, half of them positive in expectation as in the deployment.

    Decisions enter through their true positive and true negative rates alone. nan where a class is absent.
    """
    if truth.all() or not truth.any():
        return float("nan")
    hit_rate = np.array([(~decision[~truth]).mean(), decision[truth].mean()])
    rng = np.random.default_rng(seed)
    labels = rng.random((n_sequences, _MCC_WINDOW)) < 0.5
    correct = rng.random((n_sequences, _MCC_WINDOW)) < hit_rate[labels.astype(np.int64)]
    decisions = labels == correct
    tp, tn = (labels & decisions).sum(1), (~labels & ~decisions).sum(1)
    fp, fn = (~labels & decisions).sum(1), (labels & ~decisions).sum(1)
    scale = np.sqrt((tp + fp).astype(np.float64) * (tp + fn) * (tn + fp) * (tn + fn))
    matthews = np.divide(tp * tn - fp * fn, scale, out=np.zeros(n_sequences), where=scale > 0)
    accuracy = correct[:, -_ACCURACY_WINDOW:].mean(axis=1)
    return float(((0.5 * np.maximum(matthews, 0) + 0.5 * accuracy) ** _EXPONENT).mean())
