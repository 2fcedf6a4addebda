"""Binned calibration errors of probabilities; bins are (lo, hi], so that probability 1.0 counts.

Two kinds have two names: *top-label* compares the stated confidence of the answer with its
accuracy, *positive-class* compares P(positive) with the frequency of positives. `probability` is
(N,) P(positive) with `truth` (N,) bool, or (N, C) with `truth` (N,) int64 labels where a function
says so. Weights are those of `metrics`; bin edges come from the unweighted sample. Small samples
bias all errors but the debiased one upwards: report an interval beside them.

Own code, because torchmetrics and netcal drop probability 1.0 or name one kind as the other, and
none takes the weights of all replicates at once.
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
    """Data of a reliability diagram, each array (n_bins,) or (R, n_bins).

    weight: weighted samples in each bin; mean_probability and frequency: nan where a bin is empty.
    """

    weight: Floats
    mean_probability: Floats
    frequency: Floats

    @property
    def gap(self) -> Floats:
        """|frequency - mean probability| of each bin, 0 where it is empty."""
        return np.nan_to_num(np.abs(self.frequency - self.mean_probability))

    @property
    def fraction(self) -> Floats:
        """Fraction of the samples in each bin."""
        return self.weight / total(self.weight)[..., None]


def equal_width(probability: Floats, n_bins: int = N_BINS) -> Integers:
    """Return the bin (N,) of each probability: k for (k / n_bins, (k + 1) / n_bins], 0 for 0."""
    bins: Integers = np.clip(np.ceil(probability * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    return bins


def equal_mass(probability: Floats, n_bins: int = N_BINS) -> Integers:
    """Return the bin (N,) of each probability between its n_bins-quantiles.

    Bins differ in size where ties or N leave no equal ones.
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
    """Compute the reliability diagram of a forecast.

    Args:
        outcome: (N,) bool, whether the event happened.
        probability: (N,) float64, forecast of the event.
        n_bins: number of bins.
        weights: as in `metrics`.
        bins: (N,) int64, bin of each sample; by default of equal width.
    """
    bins = equal_width(probability, n_bins) if bins is None else bins
    members = np.eye(int(max(bins.max() + 1, n_bins)))[bins]
    w = multiplicities(len(outcome), weights)
    weight = w @ members

    mean_probability = ratio(w @ (members * probability[:, None]), weight, np.nan)
    frequency = ratio(w @ (members * outcome[:, None]), weight, np.nan)
    return Reliability(weight, mean_probability, frequency)


def top_label(truth: Bools | Integers, probability: Floats) -> tuple[Bools, Floats]:
    """Return event and forecast of top-label calibration: the answer is correct, its confidence.

    `probability` is (N,) P(positive) or (N, C).
    """
    if probability.ndim == 1:
        return truth == (probability > 0.5), np.maximum(probability, 1 - probability)
    return truth == probability.argmax(axis=1), probability.max(axis=1)


def ece(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Return the expected calibration error of an event: the mean gap over equal-width bins."""
    data = reliability(outcome, probability, n_bins, weights)
    return total(data.fraction * data.gap)


def mce(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Return the maximum calibration error of an event: the largest gap of an equal-width bin."""
    largest: Floats = reliability(outcome, probability, n_bins, weights).gap.max(axis=-1)
    return largest


def ece_equal_mass(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Return the expected calibration error of an event over bins of equal mass."""
    data = reliability(outcome, probability, n_bins, weights, equal_mass(probability, n_bins))
    return total(data.fraction * data.gap)


def ce_debiased(
    outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Return the root mean squared calibration error over bins of equal mass, without its bias.

    The sampling bias is subtracted before the root; negative results are 0, and bins of fewer than
    two samples count 0 (Kumar, Liang, Ma, "Verified uncertainty calibration", NeurIPS 2019,
    definition 5.1).
    """
    data = reliability(outcome, probability, n_bins, weights, equal_mass(probability, n_bins))
    frequency = np.nan_to_num(data.frequency)
    variance = ratio(frequency * (1 - frequency), data.weight - 1, 0.0)
    squared = np.where(data.weight > 1, data.gap**2 - variance, 0.0)
    return np.sqrt(np.maximum(total(data.fraction * squared), 0.0))


def ece_top_label(
    truth: Bools | Integers, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Return the top-label ECE of (N,) P(positive) or (N, C) probabilities."""
    return ece(*top_label(truth, probability), n_bins, weights)


def ece_positive_class(
    truth: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Return the positive-class ECE of (N,) P(positive)."""
    return ece(truth, probability, n_bins, weights)


def ece_classwise(
    labels: Integers, probabilities: Floats, n_bins: int = N_BINS, weights: Weights = None
) -> Floats:
    """Return the mean over classes of the ECE of "the label is class k", for (N, C) probabilities.

    Kull et al., NeurIPS 2019. Some tables print the sum over classes, which is C times as large.
    """
    classes = range(probabilities.shape[1])
    errors: Floats = np.mean(
        [ece(labels == k, probabilities[:, k], n_bins, weights) for k in classes], axis=0
    )
    return errors
