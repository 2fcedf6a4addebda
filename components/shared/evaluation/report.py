"""What does a person see of an evaluation? One self-contained HTML file: light and dark, offline, phone width."""

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.evaluation import calibration_error, metrics
from components.shared.evaluation.metrics import Bools, Floats

_CARDS = {"accuracy": "Accuracy", "mcc": "MCC", "auroc": "AUROC", "ece_top_label": "ECE"}
_NEUTRAL = "#8a8f98"  # legible on white and on near-black: the plots are transparent
_POSITIVE, _NEGATIVE = "#e07b1f", "#3f86d8"
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--card:#f6f8fa;--line:#d8dee4}
@media(prefers-color-scheme:dark){
:root{--bg:#14171b;--fg:#e6edf3;--soft:#9aa4af;--card:#1f242b;--line:#343b44}
}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:1000px;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.6rem;margin:0}
h2{font-size:1.15rem;margin:2rem 0 .6rem}
p.note{color:var(--soft);margin:.3rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:.8rem;margin:1.2rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem}
.card b{display:block;font-size:1.6rem}
.card small{color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
td.n{font-variant-numeric:tabular-nums}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:1rem}
figure{margin:0}
figure svg,figure img{width:100%;height:auto}
figcaption{color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:1rem}
.gallery img{border-radius:8px}
code{overflow-wrap:anywhere}
"""


@dataclass(frozen=True)
class HardExample:
    """One confident error."""

    sample_id: str
    path: str
    label: str
    decision: str
    probability: float


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows. truth (N,), margin (N,); thumbnails (S, S, 3) uint8 in the order of `hard`."""

    document: dict[str, Any]
    confusion: dict[str, Any]
    truth: Bools
    margin: Floats
    hard: list[HardExample]
    thumbnails: list[npt.NDArray[np.uint8]]
    counts: dict[str, Any]
    lineage: dict[str, str]


def render(data: ReportData) -> str:
    """The HTML document."""
    document, policy = data.document, data.document["policy"]
    sections = [
        f"<h1>Evaluation on {escape(document['split'])}</h1>",
        f'<p class="note">{document["n_samples"]} images from {document["n_groups"]} groups, '
        f"{document['n_positive']} of class {escape(policy['positive_class'])}. Policy: {escape(policy['kind'])}, "
        f"{escape(policy['positive_class'])} above a probability of {policy['threshold']:.4f}.</p>",
        _cards(document["metrics"]),
        f"<h2>Metrics</h2>{_metric_table(document['metrics'])}",
        f"<h2>Decisions</h2>{_confusion_table(data.confusion)}",
        f'<h2>Curves</h2><div class="plots">{_plots(data)}</div>',
        f"<h2>Hard examples</h2>{_gallery(data)}",
        _how_to_read(),
        f"<h2>Data and lineage</h2>{_facts(data)}",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>StreetVision evaluation</title><style>{_STYLE}</style>'
        f"</head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _cards(values: dict[str, Any]) -> str:
    cards = "".join(
        f'<div class="card">{title}<b>{_number(values[name]["value"])}</b>'
        f"<small>95 %: {_interval(values[name]['interval_95'])}</small></div>"
        for name, title in _CARDS.items()
    )
    return f'<div class="cards">{cards}</div>'


def _metric_table(values: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{_number(entry["value"])}</td>'
        f'<td class="n">{_interval(entry["interval_95"])}</td></tr>'
        for name, entry in values.items()
    )
    head = "<tr><th>metric</th><th>value</th><th>95 % interval</th></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def _confusion_table(confusion: dict[str, Any]) -> str:
    labels = [escape(label) for label in confusion["labels"]]
    head = "<tr><th>truth</th>" + "".join(f"<th>answered {label}</th>" for label in labels) + "</tr>"
    rows = "".join(
        f"<tr><th>{label}</th>" + "".join(f'<td class="n">{count}</td>' for count in row) + "</tr>"
        for label, row in zip(labels, confusion["matrix"], strict=True)
    )
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def _plots(data: ReportData) -> str:
    probability = metrics.sigmoid(data.margin)
    threshold = data.document["policy"]["threshold"]
    fpr, tpr, _ = metrics.roc_curve(data.truth, data.margin)
    bins = calibration_error.reliability(data.truth, probability)
    order = np.argsort(-np.abs(data.margin - data.document["policy"]["threshold_margin"]), kind="stable")
    wrong = (data.truth != (data.margin > data.document["policy"]["threshold_margin"]))[order]
    coverage = np.arange(1, len(order) + 1) / len(order)
    edges = np.linspace(0, 1, 21)

    def roc(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], "--", color=_NEUTRAL, linewidth=1)
        axes.plot(fpr, tpr, color=_POSITIVE)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")

    def reliability(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], "--", color=_NEUTRAL, linewidth=1)
        axes.plot(bins.mean_probability, bins.frequency, "o-", color=_POSITIVE, markersize=4)
        axes.set(xlabel="predicted probability", ylabel="observed frequency")

    def histogram(axes: Any) -> None:
        axes.hist(probability[~data.truth], edges, color=_NEGATIVE, alpha=0.7, label="other")
        axes.hist(probability[data.truth], edges, color=_POSITIVE, alpha=0.7, label="positive")
        axes.axvline(threshold, color=_NEUTRAL, linewidth=1)
        axes.set(xlabel="predicted probability", ylabel="images")
        axes.legend(frameon=False, labelcolor=_NEUTRAL)

    def risk(axes: Any) -> None:
        axes.plot(coverage, np.cumsum(wrong) / np.arange(1, len(order) + 1), color=_POSITIVE)
        axes.set(xlabel="coverage (most decided first)", ylabel="share of errors")

    return (
        _figure(roc, "ROC: how well scores rank")
        + _figure(reliability, "Reliability: on the diagonal, probabilities mean what they say")
        + _figure(histogram, "Scores by class; the line is the policy's threshold")
        + _figure(risk, "Risk-coverage: errors among the images answered")
    )


def _figure(draw: Any, caption: str) -> str:
    """Inline SVG, transparent, in colours for light and dark; the same bytes every time."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "streetvision", "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(4.4, 3.3), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=_NEUTRAL)
        for part in (axes.xaxis.label, axes.yaxis.label):
            part.set_color(_NEUTRAL)
        for spine in axes.spines.values():
            spine.set_color(_NEUTRAL)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    label = escape(caption, quote=True)
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _gallery(data: ReportData) -> str:
    if not data.hard:
        return '<p class="note">No errors.</p>'
    figures = "".join(
        f'<figure><img alt="{escape(item.path, quote=True)}" src="{_data_url(image)}"><figcaption>'
        f"is {escape(item.label)}, answered {escape(item.decision)} at {item.probability:.3f}<br>"
        f"{escape(item.path)}</figcaption></figure>"
        for item, image in zip(data.hard, data.thumbnails, strict=True)
    )
    return f'<p class="note">The most confident errors, worst first.</p><div class="gallery">{figures}</div>'


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).resize((160, 160)).save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _how_to_read() -> str:
    return (
        "<h2>How to read this</h2><p>Nothing here was used for training, model selection or fitting the policy. "
        "Intervals come from resampling whole groups (places, drives), since frames of one place are alike. MCC is 0 "
        "for guessing and 1 for perfection, whatever the class balance. ECE is the average gap between stated "
        "confidence and observed accuracy. The expected reward simulates the deployment's scoring on balanced "
        "sequences.</p>"
    )


def _facts(data: ReportData) -> str:
    facts = {**data.counts, **{f"digest of {name}": digest for name, digest in data.lineage.items()}}
    rows = "".join(f"<tr><td>{escape(k)}</td><td><code>{escape(str(v))}</code></td></tr>" for k, v in facts.items())
    return f'<div class="scroll"><table>{rows}</table></div>'


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return "none" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
