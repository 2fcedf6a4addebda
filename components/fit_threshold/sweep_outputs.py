"""What the threshold's fit writes for people, of a binary and of a multiclass task alike."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.fit_threshold.config import FitThresholdConfig
from components.shared.contracts.tables import write_table
from components.shared.stats.bootstrap import (
    Interval,
    group_weights,
    membership,
    probability_interval,
)
from components.shared.stats.metrics import Floats, sigmoid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def threshold_interval(
    config: FitThresholdConfig, groups: Sequence[str], thresholds: Callable[[Floats], Floats]
) -> Interval:
    """Return the 95 % bootstrap interval of a threshold as a probability, over groups.

    Args:
        config: number of replicates and seed.
        groups: (N,) group name of each sample.
        thresholds: (R,) log-odds chosen under weights (R, N), nan where there is no threshold.
    """
    member = membership(groups, len(groups))
    drawn = [thresholds(w) for w in group_weights(member, config.n_bootstrap, config.seed)]
    return probability_interval(np.concatenate(drawn), member)


def shown_interval(interval: Interval) -> str:
    """Return the interval as text."""
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "none"


def write_sweep(path: Path, thresholds: Floats, columns: Mapping[str, Floats]) -> None:
    """Write a CSV with a row for each threshold (log-odds, written as a probability)."""
    rows = zip(sigmoid(thresholds), *columns.values(), strict=True)
    shown = ([f"{value:.9g}" for value in row] for row in rows)
    write_table(path, ["threshold", *columns], shown, for_people=True)


def plot_sweep(
    path: Path,
    draw: "Callable[[Axes], None]",
    *,
    threshold: float,
    interval: Interval,
    interval_label: str,
    threshold_label: str,
) -> None:
    """Draw curves over the threshold, with the chosen one and its interval.

    Args:
        path: the PNG.
        draw: draws the curves.
        threshold: the chosen one, a probability.
        interval: of the threshold.
        interval_label: name of the interval.
        threshold_label: name of the axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    draw(axes)

    axes.axvline(threshold, color="black", linewidth=1)
    if interval is not None:
        axes.axvspan(*interval, alpha=0.15, label=interval_label)
    axes.set_xlabel(threshold_label)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
