"""Comparison of calibrators by cross-fitting over whole groups, and the choice among them.

Each sample is calibrated by a fit on the other folds. The choice goes by NLL, a proper score; the
calibration error is reported, but rewards forecasts that carry no information. Among calibrators
within one standard error of the best the simplest is chosen; `registry.eligible` says which
calibrators take part for a number of samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from components.shared.calibration import registry
from components.shared.calibration.calibrator import Calibrator, LogitArray, checked
from components.shared.contracts.errors import DataError
from components.shared.stats import calibration_error, metrics
from components.shared.stats.bootstrap import Interval, Statistic, intervals, membership
from components.shared.stats.metrics import Bools, Floats, Integers, log_softmax

UNCALIBRATED = "uncalibrated"
AUTO = "auto"  # the name of the choice by `choose`
_MAX_FOLDS = 5

ScoreTable = dict[str, tuple[float, Interval]]


@dataclass(frozen=True)
class CalibratorScores:
    """Cross-fitted scores of one calibrator.

    scores: metric name -> (value, 95 % interval over groups). excess: mean NLL minus that of the
    best calibrator; standard_error: of this paired difference.
    """

    name: str
    scores: ScoreTable
    excess: float
    standard_error: float


@dataclass(frozen=True)
class CalibratorComparison:
    """Scores of all calibrators, the uncalibrated logits first, and the name that was chosen."""

    rows: tuple[CalibratorScores, ...]
    chosen: str


def cross_fitted(name: str, logits: LogitArray, labels: Integers, folds: Integers) -> Floats:
    """Calibrate each sample by a fit on the other folds.

    Args:
        name: the calibrator.
        logits: (N, C).
        labels: (N,) int64.
        folds: (N,) int64, the fold of each sample.

    Returns:
        (N, C) float64 log-probabilities.
    """
    logits64, truth = checked(logits, labels)
    out = np.empty_like(logits64)
    for fold in np.unique(folds):
        held_out = folds == fold
        fitted = registry.fit(name, logits64[~held_out], truth[~held_out])
        out[held_out] = fitted.log_probabilities(logits64[held_out])
    return out


def group_folds(labels: Integers, groups: Sequence[str], seed: int) -> Integers:
    """Return (N,) int64, the fold of each sample: whole groups, at most 5 folds.

    Groups are dealt out in turn, ordered by the rarest class that they contain, so that every fold
    gets its part of the rare classes. scikit-learn's StratifiedGroupKFold balances classes equally
    well, but assigns other folds, which would change every cross-fitted figure, and takes 80 to 200
    times as long (3 s for 20,000 samples in 5,000 groups).

    Args:
        labels: (N,) class index of each sample.
        groups: (N,) group name of each sample.
        seed: seed of the order of the groups.

    Raises:
        DataError: a class is in one group only, or a fold has all samples of a class.
    """
    member = membership(groups, len(groups))
    classes, label = np.unique(labels, return_inverse=True)
    groups_per_class = [len(np.unique(member[label == k])) for k in range(len(classes))]
    n_folds = min(_MAX_FOLDS, *groups_per_class)
    if n_folds < 2:
        raise DataError(
            "VAL_CALIB has a class whose samples are all in one group; cross-fitting needs two"
            " groups of each class, use more data or a larger calib_fraction"
        )

    # Rank of each class by its number of samples (0: rarest), then of each group by its rarest
    # class. The inverse of an argsort is an argsort: it turns the order into ranks.
    order = np.argsort(np.bincount(label), kind="stable")
    rank_of_class = np.argsort(order)
    rank_of_group = np.full(int(member.max()) + 1, len(classes))
    np.minimum.at(rank_of_group, member, rank_of_class[label])

    shuffled = np.random.default_rng(seed).permutation(len(rank_of_group))
    dealt = shuffled[np.argsort(rank_of_group[shuffled], kind="stable")]
    fold_of_group = np.empty(len(rank_of_group), dtype=np.int64)
    fold_of_group[dealt] = np.arange(len(rank_of_group)) % n_folds

    folds = np.asarray(fold_of_group[member])

    for k in classes:
        for fold in range(n_folds):
            if not (labels[folds != fold] == k).any():
                raise DataError(
                    f"class {k} is in so few groups that one fold has all of it; use more data or a"
                    " larger calib_fraction"
                )

    return folds


def compare(
    logits: LogitArray,
    labels: Integers,
    groups: Sequence[str],
    *,
    n_replicates: int,
    seed: int,
    positive: int = 1,
) -> CalibratorComparison:
    """Score every calibrator on samples that it was not fitted on.

    Args:
        logits: (N, C).
        labels: (N,) int64.
        groups: (N,) group name of each sample.
        n_replicates: bootstrap replicates of every interval.
        seed: seed of folds and replicates.
        positive: class of the positive-class ECE, which is reported for two classes.
    """
    logits64, truth = checked(logits, labels)
    folds = group_folds(truth, groups, seed)
    log_probabilities = {UNCALIBRATED: log_softmax(logits64)}
    for name in registry.names(logits64.shape[1]):
        log_probabilities[name] = cross_fitted(name, logits64, truth, folds)

    scores = _scores(log_probabilities, truth, groups, n_replicates, seed, positive)
    samples = np.arange(len(truth))
    losses = {name: -values[samples, truth] for name, values in log_probabilities.items()}
    eligible = registry.eligible(logits64, truth)
    best = min(eligible, key=lambda name: float(losses[name].mean()))

    member = membership(groups, len(groups))
    rows = []
    for name in log_probabilities:
        excess, standard_error = _clustered_mean(losses[name] - losses[best], member)
        rows.append(CalibratorScores(name, scores[name], excess, standard_error))

    chosen = next(
        row.name for row in rows if row.name in eligible and row.excess <= row.standard_error
    )

    return CalibratorComparison(tuple(rows), chosen)


def choose(logits: LogitArray, labels: Integers, groups: Sequence[str], seed: int) -> str:
    """Return the name that `compare` would choose, without intervals."""
    logits64, truth = checked(logits, labels)
    names = registry.eligible(logits64, truth)
    if len(names) == 1:
        return names[0]

    folds, samples = group_folds(truth, groups, seed), np.arange(len(truth))
    losses = {name: -cross_fitted(name, logits64, truth, folds)[samples, truth] for name in names}
    best = min(losses.values(), key=lambda loss: float(loss.mean()))
    member = membership(groups, len(groups))

    for name, loss in losses.items():
        excess, standard_error = _clustered_mean(loss - best, member)
        if excess <= standard_error:
            return name

    raise AssertionError("the best calibrator is within any distance of itself")


def fit_named(
    name: str, logits: LogitArray, labels: Integers, groups: Sequence[str], seed: int
) -> Calibrator:
    """Fit the calibrator of that name on all samples; "auto" for the one that `choose` returns."""
    chosen = choose(logits, labels, groups, seed) if name == AUTO else name
    return registry.fit(chosen, logits, labels)


def _clustered_mean(difference: Floats, member: Integers) -> tuple[float, float]:
    """Return mean and standard error of a paired difference (N,), with groups as clusters."""
    mean = float(difference.mean())
    sums = np.bincount(member, weights=difference - mean)
    n_groups = len(sums)
    correction = n_groups / max(n_groups - 1, 1)
    return mean, float(np.sqrt(correction * (sums**2).sum()) / len(difference))


def _scores(
    log_probabilities: Mapping[str, Floats],
    truth: Integers,
    groups: Sequence[str],
    n_replicates: int,
    seed: int,
    positive: int,
) -> dict[str, ScoreTable]:
    """Return the score table of every calibrator, all intervals from the same replicates."""
    functions: dict[str, Statistic] = {}
    for name, values in log_probabilities.items():
        for metric, function in _statistics(values, truth, positive).items():
            functions[f"{name}/{metric}"] = function

    bounds = intervals(functions, groups, n_replicates, seed)

    tables: dict[str, ScoreTable] = {name: {} for name in log_probabilities}
    for key, function in functions.items():
        name, metric = key.split("/")
        tables[name][metric] = (float(np.asarray(function(None))), bounds[key])

    return tables


def _statistics(log_probability: Floats, truth: Integers, positive: int) -> dict[str, Statistic]:
    """Return the metrics of one calibrator, as functions of weights."""
    probability = np.exp(log_probability)
    correct, confidence = calibration_error.top_label(truth, probability)
    found: dict[str, Statistic] = {
        "nll": partial(metrics.nll_multiclass, truth, log_probability),
        "brier": partial(metrics.brier_multiclass, truth, probability),
        "ece_top_label": lambda w: calibration_error.ece(correct, confidence, weights=w),
    }

    if probability.shape[1] == 2:
        event: Bools = truth == positive
        found["ece_positive_class"] = lambda w: calibration_error.ece(
            event, probability[:, positive], weights=w
        )
    else:
        found["ece_classwise"] = lambda w: calibration_error.ece_classwise(
            truth, probability, weights=w
        )

    return found
