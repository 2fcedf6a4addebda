"""The score of the NATIX validator, an independent oracle of the expected reward."""

import numpy as np

from components.shared.stats.metrics import Bools, Floats, mcc
from components.shared.stats.reward import ACCURACY_WINDOW, EXPONENT, MCC_WINDOW

NO_ANSWER = -1.0


def reward(truth: Bools, probabilities: Floats) -> float:
    """Return the score, in [0, 1], after the last of a sequence of answers (N,), oldest first.

    No answer (-1), nan and probabilities outside [0, 1] earn 0. A missing answer leaves the
    windows; a value that rounds to neither 0 nor 1, or nan, stays and spoils every window that
    holds it (the metric is 0 there).
    """
    if not len(probabilities) or not 0 <= probabilities[-1] <= 1:
        return 0.0
    answered = probabilities != NO_ANSWER
    labels, decisions = truth[answered], np.round(probabilities[answered])
    matthews = max(0.0, _window_mcc(labels[-MCC_WINDOW:], decisions[-MCC_WINDOW:]))
    recent = decisions[-ACCURACY_WINDOW:]
    usable = np.isin(recent, (0, 1)).all()
    accuracy = float((labels[-ACCURACY_WINDOW:] == recent).mean()) if usable else 0.0
    return (0.5 * matthews + 0.5 * accuracy) ** EXPONENT


def _window_mcc(labels: Bools, decisions: Floats) -> float:
    return float(mcc(labels, decisions == 1)) if np.isin(decisions, (0, 1)).all() else 0.0
