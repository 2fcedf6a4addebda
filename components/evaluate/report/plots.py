"""How do curves get into a report? Inline SVG, transparent, coloured by the page: legible on light
and on dark.

matplotlib draws in placeholder colours that become the page's CSS variables. The same data give the
same bytes.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from components.evaluate.report.scorecard import Predictions
from components.shared.stats import calibration_error, metrics
from components.shared.stats.metrics import Floats, Integers
from components.shared.stats.risk_coverage import risk_coverage_curve

# Placeholders that matplotlib never writes by itself, and the CSS variable that replaces each.
TEXT, GRID, POSITIVE, NEGATIVE = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
SERIES = ("#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08")
_VARIABLES = {TEXT: "--soft", GRID: "--line", POSITIVE: "--positive", NEGATIVE: "--negative"} | {
    colour: f"--series-{index}" for index, colour in enumerate(SERIES)
}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, in the page's font
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "text.color": TEXT,
    "lines.linewidth": 1.8,
}
_MAX_POINTS = 400  # of a drawn curve: finer than a pixel
_N_SCORE_BINS = 20
Band = tuple[Floats, Floats, Floats]


@dataclass(frozen=True)
class Plot:
    """An SVG element with its title, a sentence on what to look for, and the key of its colours
    (variable, name).
    """

    svg: str
    title: str
    note: str
    key: tuple[tuple[str, str], ...] = ()


def thinned(count: int, limit: int) -> Integers:
    """At most `limit` evenly spaced positions of `count`, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def roc(predictions: Predictions) -> Plot:
    """True against false positive rate, with the policy's working point."""
    fpr, tpr, _ = metrics.roc_curve(predictions.truth, predictions.margin)
    tn, fp, fn, tp = metrics.confusion(predictions.truth, predictions.decision)
    point = fp / (fp + tn), tp / (fn + tp)

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], "--", color=TEXT, linewidth=1)
        _step(axes, fpr, tpr)
        axes.plot(*point, "o", color=POSITIVE, markersize=7)
        _unit_square(axes, "false positive rate", "true positive rate")

    label = (
        f"ROC curve. The policy works at false positive rate {point[0]:.3f}, true positive rate"
        f" {point[1]:.3f}."
    )
    note = "Up and to the left is better; the diagonal is guessing. The dot is the policy."
    return Plot(_svg(draw, "roc", label), "ROC", note)


def precision_recall(predictions: Predictions) -> Plot:
    """Precision against recall, with the policy's working point and the share of positives."""
    positives, negatives, _ = metrics.cumulated(predictions.truth, predictions.margin, None)
    recall = positives[1:] / positives[-1]
    precision = positives[1:] / (positives[1:] + negatives[1:])
    _, fp, fn, tp = metrics.confusion(predictions.truth, predictions.decision)
    share = float(predictions.truth.mean())

    def draw(axes: Any) -> None:
        axes.axhline(share, linestyle="--", color=TEXT, linewidth=1)
        _step(axes, recall, precision)
        if tp + fp > 0:
            axes.plot(tp / (tp + fn), tp / (tp + fp), "o", color=POSITIVE, markersize=7)
        _unit_square(axes, "recall", "precision")

    label = f"Precision-recall curve; {share:.3f} of the samples are positive."
    note = (
        "How many flagged images are right, against how many are found. Dashed: flagging"
        " everything."
    )
    return Plot(_svg(draw, "pr", label), "Precision and recall", note)


def reliability(predictions: Predictions) -> Plot:
    """Observed frequency against mean probability of the positive class, over equal-width bins with
    their shares.
    """
    bins = calibration_error.reliability(predictions.truth, predictions.probability)
    filled = bins.weight > 0
    centres = (np.arange(len(bins.weight)) + 0.5) / len(bins.weight)

    def draw(axes: Any) -> None:
        axes.bar(
            centres,
            0.25 * bins.fraction / bins.fraction.max(),
            width=0.9 / len(centres),
            color=GRID,
        )
        axes.plot([0, 1], [0, 1], "--", color=TEXT, linewidth=1)
        axes.plot(
            bins.mean_probability[filled], bins.frequency[filled], "-", color=SERIES[0], linewidth=1
        )
        sizes = 14 + 90 * bins.fraction[filled] / bins.fraction.max()
        axes.scatter(
            bins.mean_probability[filled],
            bins.frequency[filled],
            s=sizes,
            color=SERIES[0],
            linewidths=0,
        )
        _unit_square(axes, "predicted probability", "observed frequency")

    points = zip(bins.mean_probability[filled], bins.frequency[filled], strict=True)
    label = (
        "Reliability diagram: "
        + ", ".join(f"said {said:.2f}, was {was:.2f}" for said, was in points)
        + "."
    )
    note = "On the diagonal, 70 % means 70 %. Big dots hold many images; the bars show how many."
    return Plot(_svg(draw, "reliability", label), "Reliability", note)


def score_histogram(predictions: Predictions, threshold: float, names: tuple[str, str]) -> Plot:
    """Images by P(positive), one histogram for each class; names: (other class, positive class)."""
    edges = np.linspace(0, 1, _N_SCORE_BINS + 1)
    counts = [
        np.histogram(predictions.probability[predictions.truth == side], edges)[0]
        for side in (False, True)
    ]

    def draw(axes: Any) -> None:
        for values, colour in zip(counts, (NEGATIVE, POSITIVE), strict=True):
            axes.stairs(values, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
            axes.stairs(values, edges, color=colour, linewidth=1.6)
        axes.axvline(threshold, color=TEXT, linewidth=1.2, linestyle="--")
        axes.set(xlabel="predicted probability", ylabel="images", xlim=(0, 1))
        axes.set_ylim(bottom=0)

    label = (
        f"Histogram of predicted probabilities by class; the policy's threshold is {threshold:.4f}."
    )
    key = (("--negative", names[0]), ("--positive", names[1]))
    return Plot(
        _svg(draw, "scores", label),
        "Scores by class",
        "The further apart, the better. Dashed: threshold.",
        key,
    )


def risk_coverage(
    policies: Mapping[str, Predictions], bands: Mapping[str, Band] | None = None
) -> Plot:
    """Share of errors among the answered images over the share of images answered, for each policy
    by name.

    A dot marks the working point of a policy that defers. bands: by name, (coverages, low, high),
    each (J,).
    """
    curves = {name: risk_coverage_curve(p.confidence, p.error) for name, p in policies.items()}
    points = {
        name: (float(p.answered.mean()), float(p.error[p.answered].mean()))
        for name, p in policies.items()
        if p.answered.any() and not p.answered.all()
    }

    def draw(axes: Any) -> None:
        for index, (name, curve) in enumerate(curves.items()):
            kept, colour = thinned(len(curve.coverage), _MAX_POINTS), SERIES[index % len(SERIES)]
            if bands and name in bands:
                axes.fill_between(*bands[name], color=colour, alpha=0.15, linewidth=0)
            axes.plot(curve.coverage[kept], curve.selective_risk[kept], color=colour)
            if name in points:
                axes.plot(*points[name], "o", color=colour, markersize=7)
        axes.set(xlabel="coverage", ylabel="selective risk", xlim=(0, 1.02))
        axes.set_ylim(bottom=0)

    ends = [
        f"{name} errs on {curve.selective_risk[-1]:.3f} of all images"
        for name, curve in curves.items()
    ]
    ends += [
        f"{name} answers {share:.3f} and errs on {risk:.3f} of those"
        for name, (share, risk) in points.items()
    ]
    note = "Errors when only the surest share is answered. A good policy falls towards the left."
    note += " Shaded: 95 % interval." if bands else ""
    note += " Dots: where a policy works." if points else ""
    key = tuple((f"--series-{index % len(SERIES)}", name) for index, name in enumerate(curves))
    label = f"Risk-coverage curve: {'; '.join(ends)}."
    return Plot(_svg(draw, "risk", label), "Risk and coverage", note, key if len(key) > 1 else ())


def _step(axes: Any, x: Floats, y: Floats) -> None:
    kept = thinned(len(x), _MAX_POINTS)
    axes.plot(x[kept], y[kept], color=SERIES[0])


def _unit_square(axes: Any, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))


def _svg(draw: Callable[[Any], None], name: str, label: str) -> str:
    """The drawing as an SVG element that speaks (`label`), with ids of its own and the page's
    colours.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.0, 3.1), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, f"var({variable})")
    head = re.match(r"<svg[^>]*>", svg)
    assert head is not None
    box = re.search(r'viewBox="[^"]*"', head[0])
    assert box is not None
    start = (
        f'<svg role="img" aria-label="{escape(label)}" {box[0]}'
        ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return start + svg[head.end() :]
