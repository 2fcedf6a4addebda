"""The best of many equal candidates looks better than it is; held-out folds say by how much."""

import numpy as np
import pytest

from components.shared.calibration.selection_optimism import Selection, best_of
from components.shared.contracts.outcomes import Outcomes

OUTCOMES = Outcomes.of(("None", "Roadwork"), None, None)
N, T, DRAWS = 160, 30, 25


def _judged(rng: np.random.Generator, strengths: np.ndarray, monitor: str) -> Selection:
    """Candidates whose margins have a given strength, on images in groups of four."""
    labels = np.tile([0, 1], N // 2)
    member = np.arange(N) // 4
    margins = strengths[:, None] * (2 * labels - 1) + rng.normal(size=(len(strengths), N))
    logits = np.stack([-margins / 2, margins / 2], axis=2).astype(np.float32)
    return best_of(logits, labels, member, OUTCOMES, monitor, seed=0, n_bootstrap=200)


@pytest.mark.parametrize("monitor", ["val_select/nll", "val_select/auroc"])
def test_the_corrected_metric_of_equal_candidates_is_the_true_one(monitor: str) -> None:
    rng = np.random.default_rng(0)
    strengths = np.full(T, 0.3)
    found = [_judged(rng, strengths, monitor) for _ in range(DRAWS)]
    # Nobody has chosen the first candidate: its mean is the truth.
    truth = np.mean([each.first for each in found])
    corrected = np.array([each.corrected for each in found], dtype=float)
    apparent = np.array([each.value for each in found])
    error = corrected.std() / np.sqrt(DRAWS)

    assert abs(corrected.mean() - truth) < 3 * error
    assert abs(apparent.mean() - truth) > 5 * error
    sign = -1 if monitor == "val_select/nll" else 1
    assert sign * np.mean([each.optimism or 0 for each in found]) > 0


def test_one_that_is_better_is_found_and_gains_what_it_is_worth() -> None:
    rng = np.random.default_rng(1)
    strengths = np.full(T, 0.3)
    strengths[7] = 1.5
    found = _judged(rng, strengths, "val_select/auroc")
    assert found.chosen == 7
    assert found.corrected == pytest.approx(found.value)
    assert found.gain is not None
    assert found.gain.interval is not None
    assert found.gain.interval[0] > 0


def test_the_first_of_equals_is_chosen_and_gains_nothing() -> None:
    labels, member = np.tile([0, 1], 20), np.arange(40)
    logits = np.repeat(np.random.default_rng(0).normal(size=(1, 40, 2)), 3, axis=0)
    found = best_of(logits, labels, member, OUTCOMES, "val_select/nll", seed=0, n_bootstrap=100)
    assert (found.chosen, found.optimism) == (0, 0)
    assert found.gain is not None
    assert found.gain.value == 0


def test_one_group_says_nothing_of_the_optimism() -> None:
    labels, member = np.tile([0, 1], 4), np.zeros(8, dtype=np.int64)
    logits = np.random.default_rng(0).normal(size=(3, 8, 2))
    found = best_of(logits, labels, member, OUTCOMES, "val_select/nll", seed=0, n_bootstrap=100)
    assert (found.corrected, found.gain, found.optimism) == (None, None, None)
