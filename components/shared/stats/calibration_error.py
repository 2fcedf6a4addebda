"""Do probabilities mean what they say? Binned calibration errors; bins are (lo, hi], so that 1.0
counts.

Two questions with two names: *top-label* asks whether the stated confidence of the answer equals
its accuracy, *positive-class* whether P(positive) equals the frequency of positives. `probability`
is (N,) P(positive) with `truth` (N,) bool, or (N, C) with `truth` (N,) int64 labels where a
function says so. Weights as in `metrics`; bin edges come from the unweighted sample. Small samples
bias all but the debiased error upwards: report an interval beside it.
"""

from dataclasses import dataclass

import numpy as np

from components.shared.stats.metrics import (
    Bools,
    Floats,
    Integers,
    Weights,
    multiplicities,
    ratio,
    total,
)

N_BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Per bin: weight, mean probability, observed frequency (nan where empty); each (n_bins,) or
    (R, n_bins).
    """

    weight: Floats
    mean_probability: Floats
    frequency: Floats

    @property
    def gap(self) -> Floats:
        """|frequency - mean probability|, 0 where empty."""
        return np.nan_to_num(np.abs(self.frequency - self.mean_probability))

    @property
    def share(self) -> Floats:
        """Share of the samples in each bin."""
        return self.weight / total(self.weight)[..., None]


def equal_width(probability: Floats, n_bins: int = N_BINS) -> Integers:
    """Bin (N,) of each probability: k for the interval (k / n_bins, (k + 1) / n_bins], 0 for 0."""
    bins: Integers = np.clip(np.ceil(probability * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    return bins


def equal_mass(probability: Floats, n_bins: int = N_BINS) -> Integers:
    """Bin (N,) of each probability between its n_bins-quantiles; bins are uneven where ties or N
    make them so.
    """
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.searchsorted(edges, probability, side="left").astype(np.int64)


def reliability(
    outcome: Bools,
    probability: Floats,
    n_bins: int = N_BINS,
    weights: Weights = None,
    bins: Integers | None = None,
) -> Reliability:
    """Data of a reliability diagram of `probability` (N,) for the event `outcome` (N,); equal-width
    bins by default.
    """
    bins = equal_width(probability, n_bins) if bins is None else bins
    members = np.eye(int(max(bins.max() + 1, n_bins)))[bins]
    w = multiplicities(len(outcome), weights)
    weight = w @ members
    means = [
        ratio(w @ (members * values[:, None]), weight, np.nan) for values in (probability, outcome)
    ]
    return Reliability(weight, means[0], means[1])


def top_label(truth: Bools | Integers, probability: Floats) -> tuple[Bools, Floats]:
    """(the answer is correct, its confidence): event and probability of top-label calibration, for
    (N,) or (N, C).
    """
    if probability.ndim == 1:
        return truth == (probability > 0.5), np.maximum(probability, 1 - probability)
    return truth == probability.argmax(axis=1), probability.max(axis=1)


def ece(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Expected calibration error of an event: mean gap of frequency and mean probability over
    equal-width bins.
    """
    data = reliability(outcome, probability, n_bins, weights)
    return total(data.share * data.gap)


def mce(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Maximum calibration error of an event: the largest gap of any equal-width bin."""
    largest: Floats = reliability(outcome, probability, n_bins, weights).gap.max(axis=-1)
    return largest


def rmsce(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Root mean squared calibration error of an event over equal-width bins."""
    data = reliability(outcome, probability, n_bins, weights)
    return np.sqrt(total(data.share * data.gap**2))


def ece_equal_mass(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Expected calibration error of an event over bins of equal mass."""
    data = reliability(outcome, probability, n_bins, weights, equal_mass(probability, n_bins))
    return total(data.share * data.gap)


def ce_debiased(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Root mean squared calibration error over bins of equal mass, its sampling bias subtracted; 0
    where negative.

    Kumar, Liang, Ma, "Verified uncertainty calibration", NeurIPS 2019, definition 5.1. Bins of
    fewer than two samples count 0.
    """
    data = reliability(outcome, probability, n_bins, weights, equal_mass(probability, n_bins))
    frequency = np.nan_to_num(data.frequency)
    variance = ratio(frequency * (1 - frequency), data.weight - 1, 0.0)
    squared = np.where(data.weight > 1, data.gap**2 - variance, 0.0)
    return np.sqrt(np.maximum(total(data.share * squared), 0.0))


def ece_top_label(
    truth: Bools | Integers, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Top-label ECE: does the stated confidence equal the accuracy? For (N,) P(positive) or (N,
    C).
    """
    return ece(*top_label(truth, probability), n_bins, weights)


def ece_positive_class(
    truth: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Positive-class ECE: does P(positive) equal the frequency of positives?"""
    return ece(truth, probability, n_bins, weights)


def ece_classwise(
    labels: Integers, probabilities: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Mean over classes of the ECE of "the label is class k" under probabilities (N, C) (Kull et
    al., NeurIPS 2019).

    Some tables print the sum over classes, which is C times as large.
    """
    classes = range(probabilities.shape[1])
    errors: Floats = np.mean(
        [ece(labels == k, probabilities[:, k], n_bins, weights) for k in classes], axis=0
    )
    return errors
