"""Risk-coverage curves of a selective classifier that rejects the least confident samples.

Arguments: `confidence` (N,) float64, larger is more confident; `error` (N,) bool or losses in
[0, 1]; weights as in `metrics`. Samples with equal confidence are accepted together, so no result
depends on the order of ties. Areas are trapezoids over the distinct thresholds in the convention of
fd-shifts (Traub et al., arXiv 2407.01032, NeurIPS 2024): from coverage 0 to the first point the
selective risk is constant and the generalised risk rises from 0.

Own code, because fd-shifts is not on PyPI and fails with numpy 2, and torch-uncertainty drops the
part below the first point and depends on the order of ties. The tests hold the values of fd-shifts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from components.shared.stats import jackknife
from components.shared.stats.bootstrap import group_weights, membership
from components.shared.stats.metrics import (
    Bools,
    Floats,
    Integers,
    Weights,
    auroc,
    largest_where,
    multiplicities,
    ratio,
    total,
    weighted_mean,
)


@dataclass(frozen=True)
class RiskCoverage:
    """Working points of a rejection rule, coverage ascending, each array (D,) or (R, D).

    coverage: fraction of samples accepted. selective_risk: mean error among the accepted.
    generalised_risk: errors among the accepted over all samples. thresholds: (D,), "accept if
    confidence >= threshold".
    """

    coverage: Floats
    selective_risk: Floats
    generalised_risk: Floats
    thresholds: Floats


def risk_coverage_curve(
    confidence: Floats, error: Bools | Floats, weights: Weights = None
) -> RiskCoverage:
    """Return all D working points, one for each distinct confidence, from one sort."""
    order = np.argsort(-confidence)
    ordered = confidence[order]
    last_of_tie = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]

    w = np.take(multiplicities(len(confidence), weights), order, axis=-1)
    accepted = np.cumsum(w, axis=-1)[..., last_of_tie]
    errors = np.cumsum(w * error[order], axis=-1)[..., last_of_tie]
    all_samples = accepted[..., -1:]

    return RiskCoverage(
        coverage=accepted / all_samples,
        # Nothing is accepted before the first resampled sample: that part has no width.
        selective_risk=ratio(errors, accepted, 0.0),
        generalised_risk=errors / all_samples,
        thresholds=ordered[last_of_tie],
    )


def aurc(confidence: Floats, error: Bools | Floats, weights: Weights = None) -> Floats:
    """Return the area under the selective risk over coverage, in [0, 1]."""
    curve = risk_coverage_curve(confidence, error, weights)
    return _area(curve.coverage, curve.selective_risk)


def aurc_balanced(
    confidence: Floats, error: Bools, truth: Bools | Integers, weights: Weights = None
) -> Floats:
    """Return the AURC of the balanced selective risk (AURC-BA of fd-shifts).

    The balanced risk is the mean over the classes of `truth` (N,) of the error rate among their
    accepted samples; a class without accepted samples counts 0.
    """
    w = multiplicities(len(truth), weights)
    per_class = []
    for member in _members(truth):
        # Accepted samples and errors of the class, at the thresholds of all samples.
        accepted = risk_coverage_curve(confidence, member, w)
        errors = risk_coverage_curve(confidence, member & error, w)
        per_class.append(ratio(errors.generalised_risk, accepted.generalised_risk, 0.0))
    return _area(accepted.coverage, np.asarray(sum(per_class) / len(per_class)))


def _members(truth: Bools | Integers) -> list[Bools]:
    """Return (N,) bool for each class: whether the sample is of it; two for a bool truth."""
    classes = (False, True) if truth.dtype == bool else np.unique(truth)
    return [np.asarray(truth == value) for value in classes]


def _area(coverage: Floats, risk: Floats) -> Floats:
    """Integrate risk (..., D) over coverage (..., D), constant up to the first point."""
    width = np.diff(coverage, axis=-1, prepend=0.0)
    # The left end of a step is the risk just before it; the first step that has a width starts at
    # its own risk.
    started = np.concatenate(
        [np.zeros((*width.shape[:-1], 1), bool), coverage[..., :-1] > 0], axis=-1
    )
    before = np.concatenate([risk[..., :1], risk[..., :-1]], axis=-1)
    return total(width * (np.where(started, before, risk) + risk) / 2)


def aurc_optimal(error_rate: Floats) -> Floats:
    """Return the AURC of a perfect ranking at error rate e: e + (1 - e) ln(1 - e).

    Geifman et al., ICLR 2019, equation 4.
    """
    correct = 1 - np.asarray(error_rate)
    return np.asarray(error_rate + correct * np.log(np.where(correct > 0, correct, 1.0)))[()]


def e_aurc(confidence: Floats, error: Bools, weights: Weights = None) -> Floats:
    """Return the excess AURC: the AURC minus that of a perfect ranking."""
    return aurc(confidence, error, weights) - aurc_optimal(weighted_mean(error, weights))


def augrc(confidence: Floats, error: Bools | Floats, weights: Weights = None) -> Floats:
    """Return the area under the generalised risk over coverage, in [0, 0.5].

    It is the mean risk of undetected failures (Traub et al., NeurIPS 2024). Each error counts from
    the coverage at which it is accepted up to 1; one that is tied with others is accepted, on the
    trapezoid, halfway through its step. Only the cumulated weights at errors are needed: sparse
    sums over the samples between two of them are several times faster than the curve.
    """
    losses = np.asarray(error, dtype=np.float64)
    wrong = np.flatnonzero(losses)
    # The D distinct confidences of errors, descending; of each sample the first that accepts it.
    levels, level_of_wrong = np.unique(-confidence[wrong], return_inverse=True)
    level = np.searchsorted(levels, -confidence, side="left")
    counted = np.flatnonzero(level < len(levels))
    tied = counted[levels[level[counted]] == -confidence[counted]]

    w_NR = np.ascontiguousarray(np.atleast_2d(multiplicities(len(confidence), weights)).T)
    halfway_DR = np.cumsum(_sums(level[counted], counted, 1.0, len(levels), w_NR), axis=0)
    halfway_DR -= _sums(level[tied], tied, 0.5, len(levels), w_NR)
    lost_DR = _sums(level_of_wrong, wrong, losses[wrong], len(levels), w_NR)

    all_samples = w_NR.sum(axis=0)
    areas: Floats = (lost_DR * (all_samples - halfway_DR)).sum(axis=0) / all_samples**2
    return areas if weights is not None and weights.ndim == 2 else np.asarray(areas[0])[()]


def _sums(
    rows: Integers, columns: Integers, factors: Floats | float, n_rows: int, w_NR: Floats
) -> Floats:
    """Return (D, R): row rows[k] is the sum of the weights of samples columns[k] times factors[k].

    No sample is in two rows.
    """
    from scipy.sparse import csr_array

    values = np.broadcast_to(np.asarray(factors, dtype=np.float64), rows.shape)
    return np.asarray(csr_array((values, (rows, columns)), shape=(n_rows, len(w_NR))) @ w_NR)


def augrc_balanced(
    confidence: Floats, error: Bools, truth: Bools | Integers, weights: Weights = None
) -> Floats:
    """Return the AUGRC with all classes of `truth` (N,) at equal weight (AUGRC-BA of fd-shifts).

    It is nan where a class is absent.
    """
    areas = [
        ratio(augrc(confidence, error & member, weights), weighted_mean(member, weights), np.nan)
        for member in _members(truth)
    ]
    return np.asarray(sum(areas) / len(areas))[()]


def augrc_optimal(error_rate: Floats) -> Floats:
    """Return the AUGRC of a perfect ranking at error rate e: e^2 / 2."""
    return error_rate**2 / 2


def e_augrc(confidence: Floats, error: Bools, weights: Weights = None) -> Floats:
    """Return the excess AUGRC: the AUGRC minus that of a perfect ranking."""
    return augrc(confidence, error, weights) - augrc_optimal(weighted_mean(error, weights))


def failure_auroc(confidence: Floats, error: Bools, weights: Weights = None) -> Floats:
    """Return the AUROC of the confidence as a detector of correct answers.

    It is nan where all answers are correct, or none.
    """
    return auroc(~error, confidence, weights)


@overload
def coverage_at_risk(
    confidence: Floats, error: Bools, target: float, weights: None = None
) -> float | None: ...
@overload
def coverage_at_risk(
    confidence: Floats, error: Bools, target: float, weights: Floats
) -> Floats: ...
def coverage_at_risk(
    confidence: Floats, error: Bools, target: float, weights: Weights = None
) -> Floats | float | None:
    """Return the largest coverage with a selective risk of at most `target`.

    Where no threshold reaches the target, the result is None, or nan where weights are given.
    """
    curve = risk_coverage_curve(confidence, error, weights)
    reached = (curve.coverage > 0) & (curve.selective_risk <= target * (1 + 1e-12))
    return largest_where(reached, curve.coverage, weights)


def risk_at_coverage(
    confidence: Floats, error: Bools, target: float, weights: Weights = None
) -> Floats:
    """Return the selective risk of the smallest coverage that is at least `target` in (0, 1]."""
    curve = risk_coverage_curve(confidence, error, weights)
    first = np.argmax(curve.coverage >= target * (1 - 1e-12), axis=-1)
    chosen: Floats = np.take_along_axis(curve.selective_risk, first[..., None], axis=-1)[..., 0]
    return chosen


def risk_band(
    confidence: Floats,
    error: Bools,
    groups: Sequence[str],
    coverages: Floats,
    n_replicates: int,
    seed: int,
) -> tuple[Floats, Floats] | None:
    """Return the pointwise 95 % band of the selective risk, resampled over groups.

    Args:
        confidence: (N,) float64, larger is more confident.
        error: (N,) bool.
        groups: (N,) group name of each sample.
        coverages: (J,) float64 in (0, 1], where the band is evaluated.
        n_replicates: number of bootstrap replicates.
        seed: seed of the draws.

    Returns:
        Lower and upper ends, (J,) float64 each; None with too few groups for an interval.
    """
    member = membership(groups, len(groups))
    if not jackknife.enough(member):
        return None

    risks = []
    for weights in group_weights(member, n_replicates, seed):
        curve = risk_coverage_curve(confidence, error, weights)
        for covered, risk in zip(curve.coverage, curve.selective_risk, strict=True):
            first = np.minimum(np.searchsorted(covered, coverages * (1 - 1e-12)), len(covered) - 1)
            risks.append(risk[first])

    tail = jackknife.expanded_tail(jackknife.effective_groups(member))
    low, high = np.quantile(np.array(risks), [tail, 1 - tail], axis=0)
    return low, high
