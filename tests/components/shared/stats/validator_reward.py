"""The score of the NATIX validator, an independent oracle of the expected reward."""

import numpy as np

from components.shared.stats.metrics import Bools, Floats, mcc
from components.shared.stats.reward import ACCURACY_WINDOW, EXPONENT, MCC_WINDOW

NO_ANSWER = -1.0


def reward(truth: Bools, probabilities: Floats) -> float:
    """Return the score, in [0, 1], after the last of a sequence of answers (N,), oldest first.

    No answer (-1), nan and probabilities outside [0, 1] earn 0. The windows are of the last 100 and
    10 images: a missing answer keeps its place there and is left out of the metric, so that no
    older answer takes its place. A value that rounds to neither 0 nor 1, or nan, stays and spoils
    every window that holds it (the metric is 0 there).
    """
    if not len(probabilities) or not 0 <= probabilities[-1] <= 1:
        return 0.0
    matthews = max(0.0, _window_mcc(*_answered(truth, probabilities, MCC_WINDOW)))
    labels, decisions = _answered(truth, probabilities, ACCURACY_WINDOW)
    usable = np.isin(decisions, (0, 1)).all()
    accuracy = float((labels == decisions).mean()) if usable else 0.0
    return (0.5 * matthews + 0.5 * accuracy) ** EXPONENT


def _answered(truth: Bools, probabilities: Floats, window: int) -> tuple[Bools, Floats]:
    """Labels and rounded answers of the window's images that were answered."""
    recent = probabilities[-window:]
    answered = recent != NO_ANSWER
    return truth[-window:][answered], np.round(recent[answered])


def _window_mcc(labels: Bools, decisions: Floats) -> float:
    return float(mcc(labels, decisions == 1)) if np.isin(decisions, (0, 1)).all() else 0.0
