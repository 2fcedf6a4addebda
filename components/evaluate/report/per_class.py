"""Every class against the rest: a row of per_class.csv and of the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from components.evaluate.report.scorecard import Entry, entries, fraction
from components.shared.policies.predictions import Predictions
from components.shared.stats import calibration_error, metrics
from components.shared.stats.bootstrap import Statistic
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Bools, Floats, Weights
from components.shared.stats.miscalibration import consistency_bands

# Name -> title of the report's column, and scale of the interval; None: a calibration error.
COLUMNS: Mapping[str, tuple[str, Scale | None]] = {
    "precision": ("Precision", Scale.PROPORTION),
    "recall": ("Recall", Scale.PROPORTION),
    "f1": ("F1", Scale.UNIT),
    "auroc": ("AUROC", Scale.UNIT),
    "ece": ("ECE", None),
    "answered": ("Answered", Scale.PROPORTION),
}


@dataclass(frozen=True)
class ClassResult:
    """One class, or one side of a binary task, on VAL_TEST.

    Attributes:
        name: of the class.
        n_images: images whose true class it is.
        n_groups: groups with such an image.
        n_decided: images that are decided to be of it.
        metrics: by name of `COLUMNS`.
    """

    name: str
    n_images: int
    n_groups: int
    n_decided: int
    metrics: Mapping[str, Entry]


def measure_classes(
    predictions: Predictions, n_replicates: int, seed: int
) -> tuple[ClassResult, ...]:
    """Measure each class against the rest, with intervals over groups.

    Args:
        predictions: of one policy.
        n_replicates: draws of the bands of calibration errors.
        seed: of the draws.
    """
    return tuple(
        _measure(predictions, number, name, n_replicates, seed)
        for number, name in enumerate(predictions.outcomes.names)
    )


def _measure(
    predictions: Predictions, number: int, name: str, n_replicates: int, seed: int
) -> ClassResult:
    is_class, decided = predictions.truth == number, predictions.decision == number
    score = predictions.probabilities[:, number]
    groups = predictions.groups

    statistics: dict[str, Statistic] = {
        "precision": partial(fraction, is_class, decided),
        "recall": partial(fraction, decided, is_class),
        "f1": partial(_f1, is_class, decided),
        "auroc": partial(metrics.auroc, is_class, score),
        "ece": lambda w: calibration_error.ece(is_class, score, weights=w),
        "answered": partial(fraction, predictions.answered, is_class),
    }
    scales = {key: scale for key, (_, scale) in COLUMNS.items() if scale is not None}
    bands = consistency_bands(is_class, score, groups, n_replicates, seed)
    found = entries(
        statistics, groups, n_replicates, seed, scales, {"ece": bands["ece_positive_class"]}
    )

    return ClassResult(
        name=name,
        n_images=int(is_class.sum()),
        n_groups=len({groups[row] for row in np.flatnonzero(is_class)}),
        n_decided=int(decided.sum()),
        metrics=found,
    )


def _f1(is_class: Bools, decided: Bools, weights: Weights) -> Floats:
    """Return the F1 score; nan where the class has no samples."""
    found = metrics.f1(is_class, decided, weights)
    return np.asarray(np.where(metrics.weighted_mean(is_class, weights) > 0, found, np.nan))[()]
