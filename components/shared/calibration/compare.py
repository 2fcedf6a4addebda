"""Comparison of calibrators by cross-fitting over whole groups, and the choice among them.

Each sample is calibrated by a fit on the other folds. The choice goes by NLL, a proper score; the
calibration error is reported, but rewards forecasts that carry no information. Among calibrators
within one standard error of the best the simplest is chosen, and the simplest is none: the
uncalibrated logits are always a candidate. A temperature needs to be better than none by no margin,
because its prior prefers none already: with a margin, models that are too certain stayed so on sets
below 100 images. Data that a calibrator cannot be fitted on exclude it, with a reason; they never
end a run. A fit that turns the classifier round is excluded too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from components.shared.calibration import registry
from components.shared.calibration.calibrator import Calibrator, LogitArray, checked
from components.shared.calibration.folds import group_folds
from components.shared.calibration.linear import Platt, Temperature
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of
from components.shared.stats import calibration_error, metrics
from components.shared.stats.bootstrap import Interval, Statistic, intervals, membership
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Bools, Floats, Integers, log_softmax
from components.shared.stats.miscalibration import consistency_bands

UNCALIBRATED = "uncalibrated"
_ROUNDING = 1e-9
AUTO = "auto"  # the name of the choice by `fit_named`


@dataclass(frozen=True)
class LabelledLogits:
    """Samples that calibrators are fitted on and compared on.

    logits: (N, C); labels: (N,) int64; groups: (N,) group name of each sample; class_names: (C,),
    for messages.

    Raises:
        DataError: logits that are not finite, wrong shapes, or labels out of range.
    """

    logits: LogitArray
    labels: Integers
    groups: Sequence[str]
    class_names: Sequence[str]

    def __post_init__(self) -> None:
        checked(self.logits, self.labels)


@dataclass(frozen=True)
class FittedCalibrator:
    """A calibrator, or None and the reason why the logits stay uncalibrated."""

    calibrator: Calibrator | None
    reason: str = ""

    @property
    def name(self) -> str:
        """Name of the calibrator, "uncalibrated" for None."""
        return UNCALIBRATED if self.calibrator is None else self.calibrator.NAME


@dataclass(frozen=True)
class Score:
    """One metric of one calibrator.

    interval: 95 % over groups, of proper scores. band: of calibration errors, which have no
    interval: (0, bound), below which 95 % of such samples from a calibrated model stay.
    """

    value: float
    interval: Interval
    band: Interval


@dataclass(frozen=True)
class CalibratorScores:
    """Cross-fitted scores of one calibrator.

    scores: by name of the metric, empty where it cannot be fitted.
    excess: mean NLL minus that of the best candidate; standard_error: of this paired difference;
    both None without scores. excluded: why it is no candidate of the automatic choice, else empty.
    """

    name: str
    scores: Mapping[str, Score]
    excess: float | None
    standard_error: float | None
    excluded: str


@dataclass(frozen=True)
class CalibratorComparison:
    """Scores of all calibrators, the uncalibrated logits first, and the name that was chosen.

    reason: why the uncalibrated logits were chosen, else empty.
    """

    rows: tuple[CalibratorScores, ...]
    chosen: str
    reason: str


def cross_fitted(name: str, samples: LabelledLogits, folds: Integers) -> Floats:
    """Calibrate each sample by a fit on the other folds.

    Args:
        name: the calibrator.
        samples: the N samples.
        folds: (N,) int64, the fold of each sample.

    Returns:
        (N, C) float64 log-probabilities.

    Raises:
        DataError: the calibrator cannot be fitted on the other folds of one.
    """
    out = np.empty(samples.logits.shape)
    groups = np.array(samples.groups)
    for fold in np.unique(folds):
        held_out = folds == fold
        fitted = registry.fit(
            name, samples.logits[~held_out], samples.labels[~held_out], groups[~held_out].tolist()
        )
        out[held_out] = fitted.log_probabilities(samples.logits[held_out])
    return out


def compare(
    samples: LabelledLogits, *, n_replicates: int, seed: int, positive: int | None
) -> CalibratorComparison:
    """Score every calibrator on samples that it was not fitted on.

    Args:
        samples: the samples.
        n_replicates: bootstrap replicates of every interval.
        seed: seed of folds and replicates.
        positive: class whose probability matters, for the positive-class ECE; None for the
            class-wise ECE, where every class has its answer.
    """
    names = registry.names(len(samples.class_names))
    log_probabilities, failures = _cross_fit(names, samples, seed)
    excluded = _exclusions(names, samples) | failures
    scores = _scores(log_probabilities, samples, n_replicates, seed, positive)

    losses = _losses(log_probabilities, samples.labels)
    candidates = {name: loss for name, loss in losses.items() if name not in excluded}
    best = _best(candidates)
    member = membership(samples.groups, len(samples.groups))

    rows = []
    for name in (UNCALIBRATED, *names):
        excess, standard_error = (
            _clustered_mean(losses[name] - best, member) if name in losses else (None, None)
        )
        reason = excluded.get(name, "")
        rows.append(CalibratorScores(name, scores.get(name, {}), excess, standard_error, reason))

    chosen = _simplest(candidates, member)

    return CalibratorComparison(tuple(rows), chosen, _reason(chosen, excluded))


def choose(samples: LabelledLogits, seed: int) -> tuple[str, str]:
    """Return the name that `compare` would choose, without intervals, and a reason for none."""
    names = registry.names(len(samples.class_names))
    excluded = _exclusions(names, samples)
    candidates = [name for name in names if name not in excluded]
    chosen, failures = simplest(candidates, samples, seed)
    return chosen, _reason(chosen, excluded | failures)


def _reason(chosen: str, excluded: Mapping[str, str]) -> str:
    """Return why the uncalibrated logits were chosen, or an empty text."""
    if chosen != UNCALIBRATED:
        return ""
    if Temperature.NAME in excluded:
        return f"temperature: {excluded[Temperature.NAME]}"
    return "no calibrator's cross-fitted NLL is lower"


def simplest(
    names: Sequence[str], samples: LabelledLogits, seed: int
) -> tuple[str, dict[str, str]]:
    """Return the simplest of none and these within one standard error of the best.

    The names are ordered from simple to flexible. The second result says, by name, why any could
    not be fitted.
    """
    log_probabilities, failures = _cross_fit(names, samples, seed)
    member = membership(samples.groups, len(samples.groups))
    return _simplest(_losses(log_probabilities, samples.labels), member), failures


def fit_named(name: str, samples: LabelledLogits, seed: int) -> FittedCalibrator:
    """Fit the calibrator of that name on all samples; "auto" for the one that `choose` returns.

    Data on which it cannot be fitted give no calibrator and a reason, never an error.
    """
    if name == AUTO:
        return fit_chosen(*choose(samples, seed), samples)
    return fit_chosen(name, "", samples)


def fit_chosen(name: str, reason: str, samples: LabelledLogits) -> FittedCalibrator:
    """Fit the calibrator of that name on all samples, or none with a reason.

    `reason` says why the name is "uncalibrated".
    """
    if name == UNCALIBRATED:
        return FittedCalibrator(None, reason)

    reason = _class_problem(name, samples)
    if reason:
        return FittedCalibrator(None, f"{name}: {reason}")

    try:
        fitted = registry.fit(name, samples.logits, samples.labels, samples.groups)
    except DataError as error:
        return FittedCalibrator(None, f"{name}: {error}")

    reason = _direction_problem(fitted.log_probabilities(samples.logits), samples)
    return FittedCalibrator(None, f"{name}: {reason}") if reason else FittedCalibrator(fitted)


def _direction_problem(log_probabilities: Floats, samples: LabelledLogits) -> str:
    """Return which classes calibrated log-probabilities (N, C) turn round, or an empty text.

    A fit to samples on which the classifier is worse than chance has a lower loss where it falls as
    the logit rises. It would make every decision the opposite of the model's, without a word.
    """
    before = log_softmax(np.asarray(samples.logits, dtype=np.float64))
    covariance = ((before - before.mean(axis=0)) * log_probabilities).mean(axis=0)
    spread = before.std(axis=0) * log_probabilities.std(axis=0)

    turned = [
        samples.class_names[k] for k in np.flatnonzero(covariance < -_ROUNDING * spread).tolist()
    ]
    if not turned:
        return ""
    return (
        f"turns {first_of(map(repr, turned))} round: it lowers the probability as the logit rises,"
        " for on these samples the classifier is worse than chance; check labels and class names"
    )


def _class_problem(name: str, samples: LabelledLogits) -> str:
    """Return which classes the calibrator lacks, or an empty text.

    A temperature says nothing of single classes: it needs samples of two, the others of all.
    """
    counts = np.bincount(samples.labels, minlength=len(samples.class_names))
    absent = [
        class_name for class_name, n in zip(samples.class_names, counts, strict=True) if not n
    ]
    least = 2 if name == Temperature.NAME else len(counts)
    if len(counts) - len(absent) >= least:
        return ""
    return (
        f"class(es) {', '.join(map(repr, absent))} have no samples; use more data of them or a"
        " larger calib_fraction"
    )


def _exclusions(names: Sequence[str], samples: LabelledLogits) -> dict[str, str]:
    """Return why calibrators are no candidates of the automatic choice, by name.

    A temperature whose probabilities are worse than the frequencies of the classes is none. The
    logits are then biased, as after training with class weights, or carry no information, and Platt
    scaling, which can shift them, takes its place whatever the number of groups.
    """
    n_groups = len(set(samples.groups))
    excluded = {}
    for name in names:
        problem = _class_problem(name, samples)
        if problem:
            excluded[name] = problem
        elif n_groups < registry.FEWEST_GROUPS.get(name, 0):
            excluded[name] = f"needs {registry.FEWEST_GROUPS[name]} groups, there are {n_groups}"

    if Temperature.NAME in excluded:
        return excluded

    problem = _temperature_problem(samples)
    if problem:
        excluded[Temperature.NAME] = problem
        if not _class_problem(Platt.NAME, samples):
            excluded.pop(Platt.NAME, None)

    return excluded


def _temperature_problem(samples: LabelledLogits) -> str:
    """Return why a temperature is of no use for these samples, or an empty text."""
    try:
        fitted = Temperature.fit(samples.logits, samples.labels)
    except DataError as error:
        return str(error)

    frequencies = np.bincount(samples.labels) / len(samples.labels)
    constant = float(-(frequencies * np.log(np.where(frequencies > 0, frequencies, 1))).sum())
    nll = float(metrics.nll_multiclass(samples.labels, fitted.log_probabilities(samples.logits)))
    if nll < constant:
        return ""
    return f"its NLL {nll:.4f} is not below that of the class frequencies, {constant:.4f}"


def _cross_fit(
    names: Sequence[str], samples: LabelledLogits, seed: int
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Return (N, C) log-probabilities by name, the uncalibrated first, and reasons of failures."""
    found = {UNCALIBRATED: log_softmax(np.asarray(samples.logits, dtype=np.float64))}
    try:
        folds = group_folds(samples.labels, samples.groups, seed)
    except DataError as error:
        return found, dict.fromkeys(names, str(error))

    failures = {}
    for name in names:
        problem = _obstacle(name, samples, folds)
        if problem:
            failures[name] = problem
            continue
        try:
            calibrated = cross_fitted(name, samples, folds)
        except DataError as error:
            failures[name] = str(error)
            continue

        problem = _direction_problem(calibrated, samples)
        if problem:
            failures[name] = problem
        else:
            found[name] = calibrated

    return found, failures


def _obstacle(name: str, samples: LabelledLogits, folds: Integers) -> str:
    """Return why the calibrator is not to be cross-fitted on these folds, or an empty text."""
    n_classes = len(samples.class_names)
    most = registry.MOST_COMPARED_CLASSES.get(name, n_classes)
    if n_classes > most:
        return f"is compared for at most {most} classes, there are {n_classes}"
    return _class_problem(name, samples) or _fold_problem(name, samples, folds)


def _fold_problem(name: str, samples: LabelledLogits, folds: Integers) -> str:
    """Return which class is in one fold alone, or an empty text; a temperature can do without."""
    if name == Temperature.NAME:
        return ""
    for k, class_name in enumerate(samples.class_names):
        of_class = samples.labels == k
        if len(np.unique(folds[of_class])) == 1:
            n_groups = len(set(np.array(samples.groups)[of_class]))
            return (
                f"class {class_name!r} is in {n_groups} group(s), all in one fold; use more groups"
                " of it or a larger calib_fraction"
            )
    return ""


def _losses(log_probabilities: Mapping[str, Floats], labels: Integers) -> dict[str, Floats]:
    """Return the (N,) negative log-likelihoods of each calibrator."""
    rows = np.arange(len(labels))
    return {name: -values[rows, labels] for name, values in log_probabilities.items()}


def _best(losses: Mapping[str, Floats]) -> Floats:
    return min(losses.values(), key=lambda loss: float(loss.mean()))


def _simplest(losses: Mapping[str, Floats], member: Integers) -> str:
    """Return the first, which is the simplest, within one standard error of the best.

    No calibrator is preferred to the temperature only where that is not better at all: its prior
    holds it at 1 already.
    """
    best = _best(losses)
    temperature = losses.get(Temperature.NAME)
    for name, loss in losses.items():
        if name == UNCALIBRATED and temperature is not None and temperature.mean() < loss.mean():
            continue
        excess, standard_error = _clustered_mean(loss - best, member)
        if excess <= standard_error:
            return name
    raise AssertionError("the best calibrator is within any distance of itself")


def _clustered_mean(difference: Floats, member: Integers) -> tuple[float, float]:
    """Return mean and standard error of a paired difference (N,), with groups as clusters."""
    mean = float(difference.mean())
    sums = np.bincount(member, weights=difference - mean)
    n_groups = len(sums)
    correction = n_groups / max(n_groups - 1, 1)
    return mean, float(np.sqrt(correction * (sums**2).sum()) / len(difference))


def _scores(
    log_probabilities: Mapping[str, Floats],
    samples: LabelledLogits,
    n_replicates: int,
    seed: int,
    positive: int | None,
) -> dict[str, dict[str, Score]]:
    """Return the scores of every calibrator: intervals of proper scores, bands of the others."""
    functions: dict[str, Statistic] = {}
    for name, values in log_probabilities.items():
        for metric, function in _statistics(values, samples.labels, positive).items():
            functions[f"{name}/{metric}"] = function

    scales = {key: Scale.POSITIVE for key in functions if key.split("/")[1] in ("nll", "brier")}
    covered = {key: functions[key] for key in scales}
    bounds = intervals(covered, samples.groups, n_replicates, seed, scales)

    tables: dict[str, dict[str, Score]] = {}
    for name, values in log_probabilities.items():
        bands = _bands(values, samples, n_replicates, seed, positive)
        tables[name] = {}
        for metric in _statistics(values, samples.labels, positive):
            key = f"{name}/{metric}"
            value = float(np.asarray(functions[key](None)))
            tables[name][metric] = Score(value, bounds.get(key), bands.get(metric))

    return tables


def _bands(
    log_probability: Floats,
    samples: LabelledLogits,
    n_replicates: int,
    seed: int,
    positive: int | None,
) -> dict[str, Interval]:
    """Return the bands of the calibration errors, by metric."""
    probability: Floats = np.exp(log_probability)
    truth: Bools | Integers = samples.labels
    if positive is not None:
        truth, probability = samples.labels == positive, probability[:, positive]
    return consistency_bands(truth, probability, samples.groups, n_replicates, seed)


def _statistics(
    log_probability: Floats, truth: Integers, positive: int | None
) -> dict[str, Statistic]:
    """Return the metrics of one calibrator, as functions of weights.

    The scores are of all classes; calibration errors are of P(positive) where there is a positive
    class.
    """
    probability = np.exp(log_probability)
    found: dict[str, Statistic] = {
        "nll": partial(metrics.nll_multiclass, truth, log_probability),
        "brier": partial(metrics.brier_multiclass, truth, probability),
    }

    if positive is None:
        correct, confidence = calibration_error.top_label(truth, probability)
        found["ece_classwise"] = lambda w: calibration_error.ece_classwise(
            truth, probability, weights=w
        )
    else:
        event, of_positive = np.asarray(truth == positive), probability[:, positive]
        two = np.column_stack([1 - of_positive, of_positive])
        correct, confidence = calibration_error.top_label(event.astype(np.int64), two)
        found["ece_positive_class"] = lambda w: calibration_error.ece(event, of_positive, weights=w)

    found["ece_top_label"] = lambda w: calibration_error.ece(correct, confidence, weights=w)

    return found
