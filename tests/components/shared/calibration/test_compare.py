"""The comparison scores samples that were not fitted, resamples groups, prefers the simple."""

import numpy as np
import pytest

from components.shared.calibration import compare as comparison
from components.shared.calibration import registry
from components.shared.contracts.errors import DataError
from components.shared.stats.metrics import Floats, Integers, nll_multiclass, sigmoid


def _samples(count: int, seed: int = 0, *, bend: float = 0.0) -> tuple[Floats, Integers, list[str]]:
    """Log-odds twice as extreme as the truth; `bend` adds what temperature cannot mend."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=count) * 3
    labels = (rng.random(count) < sigmoid(margin / 2 + bend)).astype(np.int64)
    return np.column_stack([np.zeros(count), margin]), labels, [f"g{i // 2}" for i in range(count)]


def test_the_simplest_of_equals_wins() -> None:
    found = comparison.compare(*_samples(2000), n_replicates=100, seed=0)
    assert found.chosen == "temperature"
    names = [row.name for row in found.rows]
    assert names == [
        "uncalibrated",
        "temperature",
        "platt",
        "beta",
        "dirichlet",
        "isotonic",
        "histogram",
    ]
    scores = {row.name: row.scores for row in found.rows}
    assert scores["temperature"]["nll"][0] < scores["uncalibrated"]["nll"][0]
    assert (
        scores["temperature"]["ece_top_label"][0] < 0.5 * scores["uncalibrated"]["ece_top_label"][0]
    )
    for row in found.rows:
        assert row.scores.keys() == {"nll", "brier", "ece_top_label", "ece_positive_class"}
        value, interval = row.scores["nll"]
        assert interval is not None
        assert interval[0] < value < interval[1]


def test_a_bias_that_temperature_cannot_mend_needs_platt() -> None:
    samples = _samples(2000, bend=1.5)
    assert comparison.compare(*samples, n_replicates=100, seed=0).chosen == "platt"
    assert comparison.choose(*samples, seed=0) == "platt"


def test_scores_are_of_samples_left_out() -> None:
    logits, labels, _ = _samples(60)
    folds = np.arange(60) % 3
    values = comparison.cross_fitted("platt", logits, labels, folds)
    inside = registry.fit("platt", logits[folds != 1], labels[folds != 1])
    np.testing.assert_array_equal(values[folds == 1], inside.log_probabilities(logits[folds == 1]))
    all_in = registry.fit("platt", logits, labels)
    assert nll_multiclass(labels, values) > nll_multiclass(labels, all_in.log_probabilities(logits))


def test_folds_hold_whole_groups_and_every_class() -> None:
    _, labels, groups = _samples(60)
    folds = comparison.group_folds(labels, groups, 0)
    assert (folds[::2] == folds[1::2]).all()
    assert set(folds) == set(range(5))
    np.testing.assert_array_equal(folds, comparison.group_folds(labels, groups, 0))


def test_a_class_in_one_group_is_refused() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    with pytest.raises(DataError, match="all in one group"):
        comparison.group_folds(labels, ["a", "b", "c", "d", "e", "e"], 0)


def test_few_samples_leave_no_choice() -> None:
    """Sixty separable samples: binning looks best by luck, and is not taken."""
    margin = np.random.default_rng(0).normal(size=60) * 3
    samples = (
        np.column_stack([np.zeros(60), margin]),
        (margin > 0).astype(np.int64),
        [f"g{i}" for i in range(60)],
    )
    assert comparison.choose(*samples, seed=0) == "temperature"
    assert comparison.compare(*samples, n_replicates=100, seed=0).chosen == "temperature"
    assert registry.eligible(*_samples(250)[:2]) == ("temperature", "platt", "beta")
    assert registry.eligible(*_samples(1000)[:2]) == registry.names(2)


@pytest.mark.parametrize("count", [80, 2000])
def test_a_temperature_without_information_is_not_chosen(count: int) -> None:
    """Of logits that overrate a rare class, no temperature helps; a shift does."""
    rng = np.random.default_rng(0)
    margin = rng.normal(size=count)
    labels = (rng.random(count) < sigmoid(margin - 3)).astype(np.int64)
    samples = np.column_stack([np.zeros(count), margin]), labels, [f"g{i}" for i in range(count)]
    chosen = comparison.choose(*samples, seed=0)
    assert chosen == comparison.compare(*samples, n_replicates=100, seed=0).chosen == "platt"
    probability = registry.fit(chosen, *samples[:2]).transform(samples[0])[:, 1]
    assert probability.mean() == pytest.approx(labels.mean(), abs=1e-9)
