"""What does it cost to answer more? Selective risk over coverage, when the least confident samples
are rejected.

Arguments: `confidence` (N,), larger is surer; `error` (N,) bool or losses in [0, 1]; weights as in
`metrics`. Samples with equal confidence are accepted together, so no result depends on the order of
ties. Areas are trapezoids over the distinct thresholds in fd-shifts' convention (Traub et al.,
arXiv 2407.01032, NeurIPS 2024): from coverage 0 to the first point the selective risk is constant
and the generalised risk rises from 0. Other libraries drop that part or average prefix risks; their
numbers differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from components.shared.stats.bootstrap import LEVEL, group_weights, membership
from components.shared.stats.metrics import (
    Bools,
    Floats,
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
    """Points of the curve, coverage ascending, each (D,) or (R, D); thresholds (D,), "accept
    confidence >= t".

    selective_risk: mean error among the accepted. generalised_risk: errors among the accepted over
    all samples.
    """

    coverage: Floats
    selective_risk: Floats
    generalised_risk: Floats
    thresholds: Floats


def risk_coverage_curve(
    confidence: Floats, error: Bools | Floats, weights: Weights = None
) -> RiskCoverage:
    """All D working points of a rejection rule, one for each distinct confidence; one sort for all
    replicates.
    """
    order = np.argsort(-confidence)
    ordered = confidence[order]
    last = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    w = np.take(multiplicities(len(confidence), weights), order, axis=-1)
    accepted = np.cumsum(w, axis=-1)[..., last]
    errors = np.cumsum(w * error[order], axis=-1)[..., last]
    everything = accepted[..., -1:]
    return RiskCoverage(
        coverage=accepted / everything,
        # Before the first resampled sample nothing is accepted; that part of the curve has no
        # width.
        selective_risk=ratio(errors, accepted, 0.0),
        generalised_risk=errors / everything,
        thresholds=ordered[last],
    )


def aurc(confidence: Floats, error: Bools | Floats, weights: Weights = None) -> Floats:
    """Area under the selective risk over coverage, in [0, 1]."""
    curve = risk_coverage_curve(confidence, error, weights)
    return _area(curve.coverage, curve.selective_risk)


def aurc_balanced(
    confidence: Floats, error: Bools, truth: Bools, weights: Weights = None
) -> Floats:
    """AURC of the balanced selective risk: the mean over both classes of the error rate among their
    accepted samples.

    fd-shifts' AURC-BA: a class of which nothing is accepted counts 0.
    """
    per_class = []
    for member in (truth, ~truth):
        w = multiplicities(len(truth), weights)
        # Accepted samples and errors of the class at the thresholds of all samples.
        accepted = risk_coverage_curve(confidence, member, w)
        errors = risk_coverage_curve(confidence, member & error, w)
        per_class.append(ratio(errors.generalised_risk, accepted.generalised_risk, 0.0))
    return _area(accepted.coverage, (per_class[0] + per_class[1]) / 2)


def _area(coverage: Floats, risk: Floats) -> Floats:
    """Trapezoids of risk (..., D) over coverage (..., D), constant from coverage 0 to the first
    point.
    """
    width = np.diff(coverage, axis=-1, prepend=0.0)
    # The left end of a step: the risk just before it; the first step that has a width starts at its
    # own risk.
    started = np.concatenate(
        [np.zeros((*width.shape[:-1], 1), bool), coverage[..., :-1] > 0], axis=-1
    )
    before = np.concatenate([risk[..., :1], risk[..., :-1]], axis=-1)
    return total(width * (np.where(started, before, risk) + risk) / 2)


def aurc_optimal(error_rate: Floats) -> Floats:
    """AURC of a perfect ranking at this error rate e: e + (1 - e) ln(1 - e) (Geifman et al., ICLR
    2019, eq. 4).
    """
    kept = 1 - np.asarray(error_rate)
    return np.asarray(error_rate + kept * np.log(np.where(kept > 0, kept, 1.0)))[()]


def e_aurc(confidence: Floats, error: Bools, weights: Weights = None) -> Floats:
    """Excess AURC: AURC minus that of a perfect ranking."""
    return aurc(confidence, error, weights) - aurc_optimal(weighted_mean(error, weights))


def augrc(confidence: Floats, error: Bools | Floats, weights: Weights = None) -> Floats:
    """Area under the generalised risk over coverage: the mean risk of undetected failures, in [0,
    0.5].

    Each error counts from the coverage at which it is accepted up to 1; one that is tied with
    others is accepted, on the trapezoid, halfway through its step. So only errors need a look at
    the cumulated weights.
    """
    order = np.argsort(-confidence)
    ordered, losses = confidence[order], np.asarray(error, dtype=np.float64)[order]
    rows = np.flatnonzero(losses)
    first = np.searchsorted(-ordered, -ordered[rows], side="left")
    last = np.searchsorted(-ordered, -ordered[rows], side="right") - 1
    w = np.take(multiplicities(len(confidence), weights), order, axis=-1)
    accepted = np.cumsum(w, axis=-1)
    everything = accepted[..., -1:]
    halfway = (accepted[..., first] - w[..., first] + accepted[..., last]) / 2
    return total(w[..., rows] * losses[rows] * (everything - halfway)) / everything[..., 0] ** 2


def augrc_balanced(
    confidence: Floats, error: Bools, truth: Bools, weights: Weights = None
) -> Floats:
    """AUGRC with both classes at equal weight, whatever their shares (fd-shifts' AUGRC-BA); nan
    where one is absent.
    """
    shares = [weighted_mean(member, weights) for member in (truth, ~truth)]
    areas = [augrc(confidence, error & member, weights) for member in (truth, ~truth)]
    return (ratio(areas[0], shares[0], np.nan) + ratio(areas[1], shares[1], np.nan)) / 2


def augrc_optimal(error_rate: Floats) -> Floats:
    """AUGRC of a perfect ranking at this error rate e: e^2 / 2."""
    return error_rate**2 / 2


def e_augrc(confidence: Floats, error: Bools, weights: Weights = None) -> Floats:
    """Excess AUGRC: AUGRC minus that of a perfect ranking."""
    return augrc(confidence, error, weights) - augrc_optimal(weighted_mean(error, weights))


def failure_auroc(confidence: Floats, error: Bools, weights: Weights = None) -> Floats:
    """AUROC of the confidence as a detector of correct answers; nan where all or none are
    correct.
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
    """Largest coverage with a selective risk of at most `target`; None where none (nan where
    weights are given).
    """
    curve = risk_coverage_curve(confidence, error, weights)
    reached = (curve.coverage > 0) & (curve.selective_risk <= target * (1 + 1e-12))
    return largest_where(reached, curve.coverage, weights)


def risk_at_coverage(
    confidence: Floats, error: Bools, target: float, weights: Weights = None
) -> Floats:
    """Selective risk of the smallest coverage that is at least `target` in (0, 1]."""
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
) -> tuple[Floats, Floats]:
    """Ends (J,) of the pointwise 95 % interval of the selective risk at `coverages` (J,), resampled
    over groups.
    """
    rows = []
    for weights in group_weights(membership(groups, len(groups)), n_replicates, seed):
        curve = risk_coverage_curve(confidence, error, weights)
        for covered, risk in zip(curve.coverage, curve.selective_risk, strict=True):
            first = np.minimum(np.searchsorted(covered, coverages * (1 - 1e-12)), len(covered) - 1)
            rows.append(risk[first])
    low, high = np.quantile(np.array(rows), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high
