"""Do probabilities mean what they say? Binned calibration errors; bins are (lo, hi], so that 1.0 counts."""

from dataclasses import dataclass

import numpy as np

from components.shared.evaluation.metrics import Bools, Floats, Weights

N_BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Per bin: weight, mean probability, observed frequency (nan where empty); each (n_bins,) float64."""

    weight: Floats
    mean_probability: Floats
    frequency: Floats


def reliability(outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None) -> Reliability:
    """Equal-width reliability data of `probability` (N,) in [0, 1] for the event `outcome` (N,)."""
    w = np.ones(len(outcome)) if weights is None else weights
    bins = np.clip(np.ceil(probability * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    weight = np.bincount(bins, weights=w, minlength=n_bins).astype(np.float64)
    sums = [np.bincount(bins, weights=w * values, minlength=n_bins) for values in (probability, outcome)]
    means = [np.divide(total, weight, out=np.full(n_bins, np.nan), where=weight > 0) for total in sums]
    return Reliability(weight, means[0], means[1])


def top_label(truth: Bools, probability: Floats) -> tuple[Bools, Floats]:
    """(decision is correct, its confidence): the event and the probability of top-label calibration."""
    confidence = np.maximum(probability, 1 - probability)
    return truth == (probability > 0.5), confidence


def ece(outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None) -> float:
    """Expected calibration error: weighted mean gap of frequency and mean probability over equal-width bins."""
    bins = reliability(outcome, probability, n_bins, weights)
    gaps = np.nan_to_num(np.abs(bins.frequency - bins.mean_probability))
    return float((gaps * bins.weight).sum() / bins.weight.sum())


def mce(outcome: Bools, probability: Floats, n_bins: int = N_BINS, weights: Weights = None) -> float:
    """Maximum calibration error: the largest gap of any bin."""
    bins = reliability(outcome, probability, n_bins, weights)
    return float(np.nanmax(np.abs(bins.frequency - bins.mean_probability)))
