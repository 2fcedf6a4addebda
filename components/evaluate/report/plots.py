"""Plots of the report as inline SVG, coloured by the page's CSS variables for light and dark mode.

matplotlib draws in placeholder colours that are replaced afterwards. The same data give the same
bytes. Names of classes stand in titles, notes and keys, which are the page's: there any name has
its glyphs and its line breaks.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from components.shared.policies.predictions import Predictions
from components.shared.stats import calibration_error, metrics
from components.shared.stats.metrics import Floats, Integers
from components.shared.stats.risk_coverage import risk_coverage_curve

# Placeholders that matplotlib never writes on its own, and the CSS variable that replaces each.
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
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
Band = tuple[Floats, Floats, Floats]


@dataclass(frozen=True)
class Plot:
    """An SVG element with title and note; `key` pairs each CSS variable with what it stands for."""

    svg: str
    title: str
    note: str
    key: tuple[tuple[str, str], ...] = ()


def thinned(count: int, limit: int) -> Integers:
    """Return at most `limit` evenly spaced positions of `count`, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def roc(predictions: Predictions) -> Plot:
    """Plot the true against the false positive rate, with the policy's operating point."""
    truth, decision = predictions.is_positive, predictions.says_positive
    fpr, tpr, _ = metrics.roc_curve(truth, predictions.log_odds)
    tn, fp, fn, tp = metrics.confusion(truth, decision)
    point = fp / (fp + tn), tp / (fn + tp)

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], "--", color=TEXT, linewidth=1)
        _curve(axes, fpr, tpr)
        axes.plot(*point, "o", color=POSITIVE, markersize=7)
        _unit_square(axes, "false positive rate", "true positive rate")

    label = (
        f"ROC curve. The policy's false positive rate is {point[0]:.3f}, its true positive rate"
        f" {point[1]:.3f}."
    )
    note = "Towards the upper left is better; the diagonal is chance level. Dot: the policy."

    return Plot(_svg(draw, "roc", label), f"ROC of {_positive(predictions)}", note)


def precision_recall(predictions: Predictions) -> Plot:
    """Plot precision against recall, with the policy's operating point and the base rate."""
    truth = predictions.is_positive
    positives, negatives, _ = metrics.cumulated(truth, predictions.log_odds, None)
    recall = positives[1:] / positives[-1]
    precision = positives[1:] / (positives[1:] + negatives[1:])
    _, fp, fn, tp = metrics.confusion(truth, predictions.says_positive)
    base_rate = float(truth.mean())

    def draw(axes: Any) -> None:
        axes.axhline(base_rate, linestyle="--", color=TEXT, linewidth=1)
        _curve(axes, recall, precision)
        if tp + fp > 0:
            axes.plot(tp / (tp + fn), tp / (tp + fp), "o", color=POSITIVE, markersize=7)
        _unit_square(axes, "recall", "precision")

    name = _positive(predictions)
    label = f"Precision-recall curve; {base_rate:.3f} of the images are {name}."
    note = (
        f"Fraction of flagged images that are {name}, against the fraction of them that is found."
        " Dashed: every image flagged."
    )

    return Plot(_svg(draw, "pr", label), f"Precision and recall of {name}", note)


def reliability(predictions: Predictions) -> Plot:
    """Plot the observed frequency of an event against its mean predicted probability.

    The event is the positive class of a binary task, and else that the most probable class is the
    true one. Bins have equal width; bars and sizes of dots show how many images each holds.
    """
    is_binary = predictions.margin is not None
    event, probability = (
        (predictions.is_positive, predictions.probability) if is_binary else predictions.top_label
    )
    bins = calibration_error.reliability(event, probability)
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
        + ", ".join(f"predicted {mean:.2f}, observed {frequency:.2f}" for mean, frequency in points)
        + "."
    )

    note = (
        "On the diagonal, predicted probability equals observed frequency. Dot sizes and bars show"
        " the number of images."
    )
    of = f"the probability of {_positive(predictions)}" if is_binary else "the most probable class"

    return Plot(_svg(draw, "reliability", label), f"Reliability of {of}", note)


def score_histogram(predictions: Predictions, threshold: float) -> Plot:
    """Plot a histogram of P(positive) for each side of a binary task."""
    other, positive = predictions.outcomes.names
    sides = {other: ~predictions.is_positive, positive: predictions.is_positive}

    return _histogram(
        predictions.probability,
        sides,
        threshold,
        f"Predicted probability of {positive}",
        "Greater separation is better. Dashed: the policy's threshold.",
    )


def confidence_histogram(predictions: Predictions, threshold: float | None) -> Plot:
    """Plot a histogram of the most probable class's probability, of right and of wrong decisions.

    threshold: the probability from which the policy answers; None where it has no such limit.
    """
    _, probability = predictions.top_label
    note = "Wrong decisions further to the left are better."
    return _histogram(
        probability,
        {"right": ~predictions.error, "wrong": predictions.error},
        threshold,
        "Probability of the most probable class",
        note if threshold is None else f"{note} Dashed: answered from here on.",
    )


def _histogram(
    probability: Floats,
    sides: Mapping[str, metrics.Bools],
    threshold: float | None,
    title: str,
    note: str,
) -> Plot:
    """Plot a histogram of probabilities (N,) for each of two sides (N,) bool, by name."""
    edges = np.linspace(0, 1, _N_SCORE_BINS + 1)
    counts = [np.histogram(probability[side], edges)[0] for side in sides.values()]

    def draw(axes: Any) -> None:
        for values, colour in zip(counts, (NEGATIVE, POSITIVE), strict=True):
            axes.stairs(values, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
            axes.stairs(values, edges, color=colour, linewidth=1.6)
        if threshold is not None:
            axes.axvline(threshold, color=TEXT, linewidth=1.2, linestyle="--")
        axes.set(xlabel="predicted probability", ylabel="images", xlim=(0, 1))
        axes.set_ylim(bottom=0)

    at = "" if threshold is None else f"; the policy's threshold is {threshold:.4f}"
    label = f"Histogram of predicted probabilities, {' and '.join(sides)} apart{at}."
    key = tuple(zip(("--negative", "--positive"), sides, strict=True))

    return Plot(_svg(draw, "scores", label), title, note, key)


def risk_coverage(
    policies: Mapping[str, Predictions], bands: Mapping[str, Band] | None = None
) -> Plot:
    """Plot the error rate among answered images over the fraction answered.

    A dot marks the operating point of a policy that defers.

    Args:
        policies: predictions by name of the policy.
        bands: 95 % band by name: coverages, lower and upper risks, each (J,).
    """
    curves = {name: risk_coverage_curve(p.confidence, p.error) for name, p in policies.items()}
    points = {
        name: (float(p.answered.mean()), float(1 - p.covered[p.answered].mean()))
        for name, p in policies.items()
        if p.answered.any() and not p.answered.all()
    }

    def draw(axes: Any) -> None:
        for index, (name, curve) in enumerate(curves.items()):
            colour = SERIES[index % len(SERIES)]
            rows = thinned(len(curve.coverage), _MAX_POINTS)
            if bands and name in bands:
                axes.fill_between(*bands[name], color=colour, alpha=0.15, linewidth=0)
            axes.plot(curve.coverage[rows], curve.selective_risk[rows], color=colour)
            if name in points:
                axes.plot(*points[name], "o", color=colour, markersize=7)

        axes.set(xlabel="coverage", ylabel="selective risk", xlim=(0, 1.02))
        axes.set_ylim(bottom=0)

    ends = [
        f"{name}: error rate {curve.selective_risk[-1]:.3f} on all images"
        for name, curve in curves.items()
    ]
    ends += [
        f"{name}: error rate {risk:.3f} at coverage {coverage:.3f}"
        for name, (coverage, risk) in points.items()
    ]
    note = "Error rate if only the most confident images are answered; lower is better."
    note += " Shaded: 95 % interval." if bands else ""
    note += " Dots: operating points." if points else ""
    key = tuple((f"--series-{index % len(SERIES)}", name) for index, name in enumerate(curves))
    label = f"Risk-coverage curve: {'; '.join(ends)}."

    return Plot(_svg(draw, "risk", label), "Risk and coverage", note, key if len(key) > 1 else ())


def _positive(predictions: Predictions) -> str:
    """Return the name of the positive class."""
    return predictions.outcomes.names[1]


def _curve(axes: Any, x: Floats, y: Floats) -> None:
    rows = thinned(len(x), _MAX_POINTS)
    axes.plot(x[rows], y[rows], color=SERIES[0])


def _unit_square(axes: Any, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))


def _svg(draw: Callable[[Any], None], name: str, label: str) -> str:
    """Return the drawing as an SVG element with `label` as its text alternative.

    Ids get the prefix `name`, because a page holds several plots. HTML needs no XML namespaces, so
    the element has none.
    """
    root = ElementTree.fromstring(_drawn(draw, name))  # noqa: S314 - matplotlib's own output
    metadata = root.find(f"{_SVG}metadata")
    if metadata is not None:
        root.remove(metadata)

    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {
            "href" if key == _HREF else key: _attribute(key, value, name)
            for key, value in element.items()
        }

    root.attrib = {"role": "img", "aria-label": label, "viewBox": root.attrib["viewBox"]}

    return ElementTree.tostring(root, encoding="unicode")


def _drawn(draw: Callable[[Any], None], name: str) -> str:
    """Return matplotlib's SVG document; its ids depend on `name` and on nothing else."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.0, 3.1), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)

    return buffer.getvalue()


def _attribute(key: str, value: str, prefix: str) -> str:
    """Return an attribute's value with prefixed ids and the page's colours."""
    if key == "id":
        return f"{prefix}-{value}"
    if key == _HREF:
        return f"#{prefix}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{prefix}-")
    for placeholder, variable in _VARIABLES.items():
        value = value.replace(placeholder, f"var({variable})")
    return value
