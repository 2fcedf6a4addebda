"""The comparison scores samples that were not fitted, resamples groups, prefers the simple."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from components.shared.calibration import compare as comparison
from components.shared.calibration import registry
from components.shared.calibration.compare import LabelledLogits, fit_named
from components.shared.calibration.linear import Platt
from components.shared.stats.metrics import (
    Bools,
    Floats,
    Integers,
    nll_multiclass,
    sigmoid,
    softmax,
)

NAMES = ("None", "Roadwork")


def _of(
    margin: Floats, labels: Integers | Bools, groups: Sequence[str] | None = None
) -> LabelledLogits:
    """Samples of two classes, each its own group unless given."""
    logits = np.column_stack([np.zeros(len(margin)), margin])
    names = groups or [f"g{i}" for i in range(len(margin))]
    return LabelledLogits(logits, np.asarray(labels, dtype=np.int64), names, NAMES)


def _samples(count: int, seed: int = 0, *, bend: float = 0.0) -> LabelledLogits:
    """Log-odds twice as extreme as the truth; `bend` adds what temperature cannot mend."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=count) * 3
    labels = rng.random(count) < sigmoid(margin / 2 + bend)
    return _of(margin, labels, [f"g{i // 2}" for i in range(count)])


def test_the_simplest_of_equals_wins() -> None:
    found = comparison.compare(_samples(2000), n_replicates=100, seed=0, positive=1)
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
    assert scores["temperature"]["nll"].value < scores["uncalibrated"]["nll"].value
    assert (
        scores["temperature"]["ece_top_label"].value
        < 0.5 * scores["uncalibrated"]["ece_top_label"].value
    )
    for row in found.rows:
        assert row.scores.keys() == {"nll", "brier", "ece_top_label", "ece_positive_class"}
        value, interval = row.scores["nll"].value, row.scores["nll"].interval
        assert interval is not None
        assert interval[0] < value < interval[1]


def test_a_bias_that_temperature_cannot_mend_needs_platt() -> None:
    samples = _samples(2000, bend=1.5)
    assert comparison.compare(samples, n_replicates=100, seed=0, positive=1).chosen == "platt"
    assert comparison.choose(samples, seed=0)[0] == "platt"


def test_scores_are_of_samples_left_out() -> None:
    samples = _samples(60)
    logits, labels, folds = samples.logits, samples.labels, np.arange(60) % 3
    values = comparison.cross_fitted("platt", samples, folds)
    inside = registry.fit("platt", logits[folds != 1], labels[folds != 1])
    np.testing.assert_array_equal(values[folds == 1], inside.log_probabilities(logits[folds == 1]))
    all_in = registry.fit("platt", logits, labels)
    assert nll_multiclass(labels, values) > nll_multiclass(labels, all_in.log_probabilities(logits))


def test_groups_are_counted_not_images() -> None:
    """Of 2,000 frames in 50 places no calibrator but the temperature may be taken."""
    samples = _samples(2000, bend=0.5)
    grouped = replace(samples, groups=[f"place {i % 50}" for i in range(2000)])
    found = comparison.compare(grouped, n_replicates=100, seed=0, positive=1)
    excluded = {row.name: row.excluded for row in found.rows}
    assert excluded["uncalibrated"] == excluded["temperature"] == ""
    assert excluded["platt"] == "needs 100 groups, there are 50"
    assert found.chosen == comparison.choose(grouped, seed=0)[0] == "temperature"
    assert all(row.scores for row in found.rows)


def test_a_calibrated_model_stays_as_it_is() -> None:
    """The uncalibrated logits are a candidate, and the simplest."""
    rng = np.random.default_rng(0)
    margin = rng.normal(size=400) * 3
    samples = _of(margin, rng.random(400) < sigmoid(margin))
    assert (
        comparison.compare(samples, n_replicates=100, seed=0, positive=1).chosen == "uncalibrated"
    )
    fitted = fit_named("auto", samples, seed=0)
    assert (fitted.calibrator, fitted.name) == (None, "uncalibrated")
    assert fitted.reason == "no calibrator's cross-fitted NLL is lower"


@pytest.mark.parametrize("n_groups", [40, 1200])
def test_a_classifier_that_is_worse_than_chance_is_not_turned_round(n_groups: int) -> None:
    """Platt scaling had a slope of -9.26, and the bundle gave the opposite of the model's answers.

    No choice and no name gives a calibrator that lowers the probability as the logit rises.
    """
    rng = np.random.default_rng(0)
    margin = rng.normal(size=1200) * 3
    groups = [f"g{i % n_groups}" for i in range(1200)]
    samples = _of(margin, rng.random(1200) < sigmoid(-margin), groups)
    assert registry.fit("platt", samples.logits, samples.labels).slope[0] < -0.5  # type: ignore[attr-defined]

    found = comparison.compare(samples, n_replicates=100, seed=0, positive=1)
    excluded = {row.name: row.excluded for row in found.rows}
    assert "worse than chance" in excluded["platt"]
    for name in ("auto", *registry.CLASSES):
        calibrator = fit_named(name, samples, seed=0).calibrator
        if calibrator is not None:
            low, high = calibrator.transform(np.array([[0.0, -3.0], [0.0, 3.0]]))[:, 1]
            assert low <= high, name
    assert "platt: turns 'None', 'Roadwork' round" in fit_named("platt", samples, seed=0).reason


@pytest.mark.parametrize("accuracy", [0.95, 0.99])
@pytest.mark.parametrize("count", [30, 99])
def test_samples_without_an_error_do_not_make_later_errors_infinite(
    accuracy: float, count: int
) -> None:
    """A calibrated model had an NLL of 38 to 48 on new data, its temperature being e^-8."""
    distance = 2 * norm.ppf(accuracy)

    def draw(n: int, rng: np.random.Generator) -> tuple[Integers, Floats]:
        labels = rng.integers(0, 2, n)
        return labels, distance * (rng.normal(size=n) + (2 * labels - 1) * distance / 2)

    labels, margin = draw(20_000, np.random.default_rng(0))
    new = np.column_stack([np.zeros(len(margin)), margin])
    losses = []
    for seed in range(30):
        few, few_margin = draw(count, np.random.default_rng([seed, count]))
        calibrator = fit_named("auto", _of(few_margin, few), seed=0).calibrator
        predicted = new if calibrator is None else calibrator.log_probabilities(new)
        losses.append(float(nll_multiclass(labels, predicted)))

    uncalibrated = float(nll_multiclass(labels, new))
    assert np.mean(losses) < 1.2 * uncalibrated
    assert max(losses) < 2 * uncalibrated


def test_few_samples_leave_no_choice() -> None:
    """Sixty separable samples: binning looks best by luck, and is not taken."""
    margin = np.random.default_rng(0).normal(size=60) * 3
    samples = _of(margin, margin > 0)
    assert comparison.choose(samples, seed=0)[0] == "temperature"
    assert comparison.compare(samples, n_replicates=100, seed=0, positive=1).chosen == "temperature"


@pytest.mark.parametrize("count", [80, 2000])
def test_a_temperature_without_information_is_not_chosen(count: int) -> None:
    """Of logits that overrate a rare class, no temperature helps; a shift does."""
    rng = np.random.default_rng(0)
    margin = rng.normal(size=count)
    samples = _of(margin, rng.random(count) < sigmoid(margin - 3))
    chosen = comparison.choose(samples, seed=0)[0]
    assert (
        chosen
        == comparison.compare(samples, n_replicates=100, seed=0, positive=1).chosen
        == "platt"
    )
    probability = registry.fit(chosen, samples.logits, samples.labels).transform(samples.logits)
    assert probability[:, 1].mean() == pytest.approx(samples.labels.mean(), abs=1 / count)


def _of_classes(n_classes: int, count: int) -> LabelledLogits:
    """Calibrated logits, but twice as extreme."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, n_classes)) * 2
    labels = (rng.random(count)[:, None] > np.cumsum(softmax(logits), axis=1)).sum(axis=1)
    names = [f"sign {k}" for k in range(n_classes)]
    return LabelledLogits(2 * logits, labels, [f"g{i // 2}" for i in range(count)], names)


def test_several_classes_are_compared_by_their_top_label_and_each_class() -> None:
    found = comparison.compare(_of_classes(5, 900), n_replicates=100, seed=0, positive=None)
    assert found.chosen == "temperature"
    assert [row.name for row in found.rows][1:] == list(registry.CLASSES)
    for row in found.rows:
        assert row.scores.keys() == {"nll", "brier", "ece_top_label", "ece_classwise"}
    rest = comparison.compare(_of_classes(5, 900), n_replicates=100, seed=0, positive=3)
    assert all("ece_positive_class" in row.scores for row in rest.rows)


def test_many_classes_leave_out_what_has_too_many_parameters() -> None:
    found = comparison.compare(_of_classes(30, 600), n_replicates=100, seed=0, positive=None)
    rows = {row.name: row for row in found.rows}
    assert found.chosen == "temperature"
    assert rows["dirichlet"].excluded == "is compared for at most 20 classes, there are 30"
    assert not rows["dirichlet"].scores


def test_a_class_without_samples_leaves_the_temperature() -> None:
    samples = _of_classes(5, 900)
    kept = samples.labels != 2
    few = LabelledLogits(
        samples.logits[kept],
        samples.labels[kept],
        np.array(samples.groups)[kept].tolist(),
        samples.class_names,
    )
    assert fit_named("auto", few, seed=0).name == "temperature"
    reason = fit_named("vector", few, seed=0).reason
    assert reason.startswith("vector: class(es) 'sign 2' have no samples; use more data of them")


MARGIN = np.array([-3.0, -1, -2, 1, -2, -1, 3, 2])
LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("labels", "groups", "name", "reason"),
    [
        (LABELS * 0, "abcdefgh", "auto", "temperature: class.es. 'Roadwork' have no samples"),
        (LABELS * 0, "abcdefgh", "temperature", "class.es. 'Roadwork' have no samples; use more"),
        (LABELS * 0, "abcdefgh", "isotonic", "isotonic: class.es. 'Roadwork' have no samples"),
        (LABELS, "aaaaaaaa", "auto", "temperature: all 8 samples are of one group"),
    ],
)
def test_data_that_allow_no_calibrator_give_a_reason(
    labels: Integers, groups: str, name: str, reason: str
) -> None:
    samples = _of(MARGIN, labels, list(groups))
    fitted = fit_named(name, samples, seed=0)
    assert fitted.calibrator is None
    assert re.search(reason, fitted.reason)
    found = comparison.compare(samples, n_replicates=100, seed=0, positive=1)
    assert found.chosen == "uncalibrated"
    assert all(row.excluded for row in found.rows[1:])


def test_a_class_of_one_group_leaves_temperature_or_none() -> None:
    """Cross-fitting needed two groups of each class, and ended the run without them."""
    samples = _of(MARGIN, LABELS, ["a", "b", "c", "d", "a", "b", "e", "e"])
    rows = comparison.compare(samples, n_replicates=100, seed=0, positive=1).rows
    excluded = {row.name: row.excluded for row in rows}
    assert excluded["uncalibrated"] == excluded["temperature"] == ""
    assert all(reason for name, reason in excluded.items() if name in registry.FEWEST_GROUPS)
    assert [bool(row.scores) for row in rows] == [True, True] + [False] * 5
    assert isinstance(fit_named("platt", samples, seed=0).calibrator, Platt)


@pytest.mark.parametrize("size", [1e4, 1e38])
def test_logits_of_any_size_end_in_a_choice(size: float) -> None:
    """A NaN among the losses was a StopIteration."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    margin = np.where((labels == 1) ^ (rng.random(400) < 0.1), size, -size)
    samples = _of(margin, labels)
    name = comparison.compare(samples, n_replicates=100, seed=0, positive=1).chosen
    assert name == comparison.choose(samples, seed=0)[0]
    calibrator = fit_named("auto", samples, seed=0).calibrator
    assert calibrator is not None
    nll = nll_multiclass(labels, calibrator.log_probabilities(samples.logits))
    assert float(nll) < 0.4
