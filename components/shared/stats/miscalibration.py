"""Whether a miscalibration is more than noise: bands of calibration errors, and a kernel test.

Binned calibration errors are positive for a perfectly calibrated model too, so an interval around
them does not cover. What can be said is which errors a calibrated model shows on such samples
(Broecker and Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting
2007). Their resampling takes samples for independent. Here the residuals `outcome - probability` of
whole groups change their sign at random: their mean is 0 if the model is calibrated, and what the
samples of a group have in common is kept.

`truth` is (N,) bool with (N,) P(positive), or (N,) int64 labels with (N, C) probabilities. Own
code, because no library of calibration errors knows groups.
"""

from collections.abc import Callable, Sequence

import numpy as np

from components.shared.stats import jackknife
from components.shared.stats.bootstrap import Interval, membership, random_signs
from components.shared.stats.calibration_error import (
    N_BINS,
    equal_mass,
    equal_width,
    reliability,
    top_label,
)
from components.shared.stats.metrics import Bools, Floats, Integers

_KNOTS = np.linspace(0.0, 1.0, 17)
_KERNEL_WIDTH = 0.25  # in units of probability: deviations over about a quarter of the range
_DRAWN_ELEMENTS = 2_000_000


def consistency_bands(
    truth: Bools | Integers,
    probability: Floats,
    groups: Sequence[str],
    n_replicates: int,
    seed: int,
) -> dict[str, Interval]:
    """Return the calibration errors that a perfectly calibrated model shows on such samples.

    Args:
        truth: (N,).
        probability: (N,) or (N, C).
        groups: (N,) group name of each sample.
        n_replicates: number of draws of signs.
        seed: seed of the draws.

    Returns:
        Name of each error -> (0, bound), below which 95 % of such samples stay; None with too few
        groups. The names: "ece_top_label", "ece_equal_mass", "ce_debiased", "mce_top_label", and
        "ece_positive_class" for (N,), "ece_classwise" for (N, C).
    """
    correct, confidence = top_label(truth, probability)
    width, mass = equal_width(confidence), equal_mass(confidence)
    events, forecasts = _classes(truth, probability)
    n_classes = forecasts.shape[1]
    # One bin for each class and interval of its probability.
    of_class = equal_width(forecasts) + N_BINS * np.arange(n_classes)
    last = "ece_positive_class" if probability.ndim == 1 else "ece_classwise"

    member = membership(groups, len(groups))
    top = correct - confidence
    n = len(top)
    noise = _bin_variance(correct, confidence, mass)
    errors: dict[str, tuple[Floats, Callable[[Floats], Floats]]] = {
        "ece_top_label": (_sums(top, width, member), lambda s: np.abs(s).sum(axis=1) / n),
        "ece_equal_mass": (_sums(top, mass, member), lambda s: np.abs(s).sum(axis=1) / n),
        "ce_debiased": (_sums(top, mass, member), lambda s: _debiased(s, mass, noise)),
        "mce_top_label": (_sums(top, width, member), lambda s: _largest(s, width)),
        last: (
            _sums((events - forecasts).ravel(), of_class.ravel(), np.repeat(member, n_classes)),
            lambda s: np.abs(s).sum(axis=1) / (n * n_classes),
        ),
    }
    if not jackknife.enough(member):
        return dict.fromkeys(errors)

    # The correction of a variance over few clusters, with groups counted by their size.
    effective = jackknife.effective_groups(member)
    inflation = np.sqrt(effective / (effective - 1))
    return {
        name: (
            0.0,
            float(
                np.quantile(_signed(inflation * sums, error, n_replicates, seed), jackknife.LEVEL)
            ),
        )
        for name, (sums, error) in errors.items()
    }


def calibration_p_value(
    truth: Bools | Integers,
    probability: Floats,
    groups: Sequence[str],
    n_replicates: int,
    seed: int,
) -> float | None:
    """Test whether the probabilities of all classes are calibrated; small values say that not.

    The statistic is the squared kernel calibration error, summed over classes, between samples of
    different groups only (Widmann, Lindsten, Zachariah, "Calibration tests in multi-class
    classification", NeurIPS 2019, with one kernel for each class's probability). A calibrated model
    gets a value of at most 0.05 in at most about 5 % of data sets.

    Args:
        truth: (N,).
        probability: (N,) or (N, C).
        groups: (N,) group name of each sample.
        n_replicates: number of draws of signs.
        seed: seed of the draws.

    Returns:
        None with too few groups.
    """
    member = membership(groups, len(groups))
    if not jackknife.enough(member):
        return None

    events, forecasts = _classes(truth, probability)
    residual = events - forecasts
    sums = np.concatenate(
        [
            _group_sums(residual[:, [k]] * _features(forecasts[:, k]), member)
            for k in range(forecasts.shape[1])
        ],
        axis=1,
    )

    # Pairs within a group do not change with its sign, so they need not be subtracted.
    def squared(s: Floats) -> Floats:
        return np.asarray((s**2).sum(axis=1))

    drawn = _signed(sums, squared, n_replicates, seed)
    observed = float(squared(sums.sum(axis=0)[None])[0])
    return float((1 + (drawn >= observed * (1 - 1e-12)).sum()) / (1 + n_replicates))


def _classes(truth: Bools | Integers, probability: Floats) -> tuple[Floats, Floats]:
    """Return events and forecasts, (N, C) float64 each; C is 1 for P(positive)."""
    if probability.ndim == 1:
        return truth.astype(np.float64)[:, None], probability[:, None]
    return np.eye(probability.shape[1])[truth.astype(np.int64)], probability


def _features(probability: Floats) -> Floats:
    """Return (N, 17) features whose products are the kernel exp(-|p - q| / width).

    They are exact between the knots of an even grid, and interpolated elsewhere (Nystroem).
    """
    kernel = np.exp(-np.abs(_KNOTS[:, None] - _KNOTS) / _KERNEL_WIDTH)
    values, vectors = np.linalg.eigh(kernel)
    to_knots = np.exp(-np.abs(probability[:, None] - _KNOTS) / _KERNEL_WIDTH)
    return np.asarray(to_knots @ (vectors / np.sqrt(values)))


def _signed(
    sums: Floats, error: Callable[[Floats], Floats], n_replicates: int, seed: int
) -> Floats:
    """Return (n_replicates,) errors of sums (G, D) over groups whose signs are random."""
    n_groups = len(sums)
    signs = random_signs(n_replicates, n_groups, seed)
    step = max(1, _DRAWN_ELEMENTS // sums.shape[1])
    return np.concatenate([error(signs[k : k + step] @ sums) for k in range(0, n_replicates, step)])


def _sums(residual: Floats, bins: Integers, member: Integers) -> Floats:
    """Return (G, n_bins) sums of residuals (N,) over groups and bins."""
    n_groups, n_bins = int(member.max()) + 1, int(bins.max()) + 1
    flat = np.bincount(member * n_bins + bins, weights=residual, minlength=n_groups * n_bins)
    return np.asarray(flat.reshape(n_groups, n_bins), dtype=np.float64)


def _group_sums(values: Floats, member: Integers) -> Floats:
    """Return (G, D) sums of values (N, D) over groups."""
    return np.stack([np.bincount(member, weights=column) for column in values.T], axis=1)


def _largest(sums: Floats, bins: Integers) -> Floats:
    """Return the largest mean of a bin, of sums (R, n_bins)."""
    return np.asarray((np.abs(sums) / np.maximum(np.bincount(bins), 1)).max(axis=1))


def _bin_variance(outcome: Bools, probability: Floats, bins: Integers) -> Floats:
    """Return (n_bins,) variance of the frequency in each bin, nan with fewer than two samples."""
    data = reliability(outcome, probability, 1, bins=bins)
    several = data.weight > 1
    variance = data.frequency * (1 - data.frequency)
    return np.asarray(np.where(several, variance / np.where(several, data.weight - 1, 1), np.nan))


def _debiased(sums: Floats, bins: Integers, variance: Floats) -> Floats:
    """Return the debiased error of sums (R, n_bins); bins without a variance count 0."""
    weight = np.bincount(bins)
    squared = np.nan_to_num((sums / np.maximum(weight, 1)) ** 2 - variance)
    return np.asarray(np.sqrt(np.maximum((squared * weight).sum(axis=1) / weight.sum(), 0.0)))
