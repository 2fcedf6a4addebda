"""Which calibrator predicts best what it has not seen? Comparison by cross-fitting over whole
groups.

Each sample is calibrated by a fit on the other folds. The choice goes by NLL, a proper score; the
calibration error is reported, but rewards forecasts that say nothing. Among calibrators within one
standard error of the best, the simplest is chosen; which take part depends on the number of samples
(`registry.eligible`).
"""

from collections.abc import Sequence
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
_MAX_FOLDS = 5


@dataclass(frozen=True)
class Row:
    """One calibrator's cross-fitted scores: metric name -> (value, 95 % interval over groups).

    excess: mean NLL minus that of the best calibrator, with the standard error of this paired
    difference.
    """

    name: str
    scores: dict[str, tuple[float, Interval]]
    excess: float
    standard_error: float


@dataclass(frozen=True)
class Comparison:
    """The rows, the uncalibrated one first, and the name that was chosen."""

    rows: tuple[Row, ...]
    chosen: str


def cross_fitted(name: str, logits: LogitArray, labels: Integers, folds: Integers) -> Floats:
    """(N, C) log-probabilities; each sample's come from a fit on the other folds. folds: (N,)
    int64.
    """
    logits64, truth = checked(logits, labels)
    out = np.empty_like(logits64)
    for fold in np.unique(folds):
        held_out = folds == fold
        out[held_out] = registry.fit(name, logits64[~held_out], truth[~held_out]).log_probabilities(
            logits64[held_out]
        )
    return out


def group_folds(labels: Integers, groups: Sequence[str], seed: int) -> Integers:
    """(N,) fold of each sample: whole groups, dealt out within their rarest class, at most 5 folds.

    Raises DataError where some class is in one group only, so that no fold can be held out.
    """
    member = membership(groups, len(groups))
    classes, label = np.unique(labels, return_inverse=True)
    per_class = [len(np.unique(member[label == k])) for k in range(len(classes))]
    n_folds = min(_MAX_FOLDS, *per_class)
    if n_folds < 2:
        raise DataError(
            "VAL_CALIB has a class whose samples are all in one group; cross-fitting needs two"
            " groups of each"
        )
    rarity = np.argsort(np.argsort(np.bincount(label), kind="stable"))
    stratum = np.full(int(member.max()) + 1, len(classes))
    np.minimum.at(stratum, member, rarity[label])
    shuffled = np.random.default_rng(seed).permutation(len(stratum))
    dealt = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    fold_of_group = np.empty(len(stratum), dtype=np.int64)
    fold_of_group[dealt] = np.arange(len(stratum)) % n_folds
    folds = np.asarray(fold_of_group[member])
    lacking = [k for k in classes for f in range(n_folds) if not (labels[folds != f] == k).any()]
    if lacking:
        raise DataError(
            f"class {lacking[0]} is in so few groups that a fold has all of it; use more data"
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
) -> Comparison:
    """Scores of every calibrator on samples it was not fitted on.

    logits (N, C), labels (N,) int64. `positive` is the class of the positive-class ECE, reported
    for two classes.
    """
    logits64, truth = checked(logits, labels)
    folds = group_folds(truth, groups, seed)
    log_probabilities = {UNCALIBRATED: log_softmax(logits64)}
    log_probabilities |= {
        n: cross_fitted(n, logits64, truth, folds) for n in registry.names(logits64.shape[1])
    }
    scores = _scores(log_probabilities, truth, groups, n_replicates, seed, positive)
    losses = {
        name: -values[np.arange(len(truth)), truth] for name, values in log_probabilities.items()
    }
    candidates = registry.eligible(logits64, truth)
    best = min(candidates, key=lambda name: float(losses[name].mean()))
    member = membership(groups, len(groups))
    rows = [
        Row(n, scores[n], *_paired(losses[n] - losses[best], member)) for n in log_probabilities
    ]
    chosen = next(
        row.name for row in rows if row.name in candidates and row.excess <= row.standard_error
    )
    return Comparison(tuple(rows), chosen)


def choose(logits: LogitArray, labels: Integers, groups: Sequence[str], seed: int) -> str:
    """The name `compare` would choose, without intervals."""
    logits64, truth = checked(logits, labels)
    names = registry.eligible(logits64, truth)
    if len(names) == 1:
        return names[0]
    folds, rows = group_folds(truth, groups, seed), np.arange(len(truth))
    losses = {n: -cross_fitted(n, logits64, truth, folds)[rows, truth] for n in names}
    best = min(losses.values(), key=lambda loss: float(loss.mean()))
    member = membership(groups, len(groups))
    for name, loss in losses.items():
        excess, error = _paired(loss - best, member)
        if excess <= error:
            return name
    raise AssertionError("the best calibrator is within any distance of itself")


def fit_named(
    name: str, logits: LogitArray, labels: Integers, groups: Sequence[str], seed: int
) -> Calibrator:
    """The calibrator of that name, "auto" for the one `choose` names, fitted on all these
    samples.
    """
    chosen = choose(logits, labels, groups, seed) if name == "auto" else name
    return registry.fit(chosen, logits, labels)


def _paired(difference: Floats, member: Integers) -> tuple[float, float]:
    """Mean of a paired difference and its standard error with groups as clusters."""
    mean = float(difference.mean())
    sums = np.bincount(member, weights=difference - mean)
    n_groups = len(sums)
    correction = n_groups / max(n_groups - 1, 1)
    return mean, float(np.sqrt(correction * (sums**2).sum()) / len(difference))


def _scores(
    log_probabilities: dict[str, Floats],
    truth: Integers,
    groups: Sequence[str],
    n_replicates: int,
    seed: int,
    positive: int,
) -> dict[str, dict[str, tuple[float, Interval]]]:
    functions: dict[str, Statistic] = {}
    for name, values in log_probabilities.items():
        functions |= {f"{name}/{key}": f for key, f in _statistics(values, truth, positive).items()}
    bounds = intervals(functions, groups, n_replicates, seed)
    out: dict[str, dict[str, tuple[float, Interval]]] = {}
    for key, function in functions.items():
        name, metric = key.split("/")
        value = function(None)
        out.setdefault(name, {})[metric] = (float(np.asarray(value)), bounds[key])
    return out


def _statistics(log_probability: Floats, truth: Integers, positive: int) -> dict[str, Statistic]:
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
