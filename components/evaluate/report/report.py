"""What does a person see of an evaluation? One self-contained HTML file: light and dark, offline,
phone width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from components.evaluate.report import page, plots
from components.evaluate.report.early_exit_report import EarlyExitResult, early_exit_section
from components.evaluate.report.guarantees import Guarantee, PolicyComparison, promises_section
from components.evaluate.report.robustness import Robustness, robustness_section
from components.evaluate.report.scorecard import ROWS, Entry, Predictions, Row, Targets
from components.shared.contracts.artifacts import Manifest
from components.shared.policies.policy import Policy
from components.shared.stats import metrics

_CARDS = {"accuracy": "Accuracy", "mcc": "MCC", "auroc": "AUROC", "ece_top_label": "ECE, top label"}
# Resampling so few groups understates how much they differ: cluster methods need some tens of them.
_FEW_GROUPS = 20
_READ = {
    "What was measured": (
        "Only VAL_TEST images. Nothing here was used for training, model selection or fitting the "
        "policy, and no place or drive appears in two splits."
    ),
    "95 % interval": (
        "What resampling whole groups of images (places, drives) gives, since images of one place"
        " are alike. Wide means too few groups to be sure. Two policies differ for sure only if a"
        " paired comparison says so."
    ),
    "MCC": (
        "Agreement of decisions with the truth: 1 is perfect, 0 is guessing, whatever the share of"
        " each class."
    ),
    "AUROC, average precision": (
        "How well scores rank, before any threshold. 0.5 AUROC is guessing; average precision "
        "starts from the share of positives."
    ),
    "ECE, MCE": (
        "Mean and largest gap between the probability that was stated and what then happened. Top"
        " label asks about the answer given, positive class about the probability itself. Small"
        " samples make both look worse; the debiased error (root mean square) has that part"
        " subtracted."
    ),
    "Brier, NLL": "Errors of probabilities: lower is better, and being sure and wrong costs most.",
    "Coverage at precision": (
        "The share of images that could be flagged if flags must be right that often; none where "
        "no threshold gets there."
    ),
    "AURC, AUGRC": (
        "The error rate over all shares of images answered, surest first; 0 is perfect. Sure means"
        " far from the policy's threshold."
    ),
    "Excess": "What is left above a perfect ranking of the same errors.",
    "Share answered": (
        "A policy that defers leaves the rest to stage 2; the rows below it are about what it"
        " answered. Metrics above count every image, with the decision the policy would have given."
    ),
    "Expected deployment reward": (
        "The mean of (0.5 max(0, MCC of 100) + 0.5 accuracy of 10) cubed, in a stream with "
        "as many positives as negatives. It counts decisions only."
    ),
}


@dataclass(frozen=True)
class PolicyResult:
    """One policy, what it says on VAL_TEST, and its metrics."""

    policy: Policy
    predictions: Predictions
    metrics: Mapping[str, Entry]
    band: plots.Band | None = None

    @property
    def threshold(self) -> str:
        """The decision rule in words."""
        rule = (
            f"{self.policy.positive_class} when its probability is above"
            f" {self.policy.threshold:.4f}"
        )
        return (
            rule if self.policy.kind == "softmax" else f"{rule}, deferring what it is unsure about"
        )


@dataclass(frozen=True)
class HardExample:
    """An error that the policy was sure about. image: (S, S, 3) uint8."""

    sample_id: str
    path: str
    label: str
    decision: str
    probability: float
    missed: bool  # a positive that was not found; a false alarm otherwise
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows. `policies` by name: the first is the one shown in detail, all
    are compared.

    class_names: (other, positive). counts: figures of the whole dataset. lineage: the manifest of
    each input.
    """

    class_names: tuple[str, str]
    policies: Mapping[str, PolicyResult]
    hard: Sequence[HardExample]
    counts: Mapping[str, object]
    lineage: Mapping[str, Manifest]
    targets: Targets
    n_bootstrap: int
    promises: Sequence[Guarantee] = ()
    comparisons: Sequence[PolicyComparison] = ()
    early_exits: Sequence[EarlyExitResult] = ()
    robustness: Sequence[Robustness] = ()
    students: Sequence[PolicyResult] = ()


def render(data: ReportData) -> str:
    """The HTML document; the same data give the same bytes."""
    shown = next(iter(data.policies.values()))
    n_groups = _n_groups(shown)
    note = (
        f"↑ higher is better, ↓ lower is better. 95 % intervals from {data.n_bootstrap} resamples"
        f" of {n_groups} groups"
    )
    note += "; with so few groups they are too narrow." if n_groups < _FEW_GROUPS else "."
    parts = [
        _head(data, shown),
        page.section("Metrics", _metric_table(data), note),
        promises_section(data.promises, data.comparisons),
        early_exit_section(data.early_exits),
        _student_section(data),
        robustness_section(data.robustness),
        page.section("Decisions and curves", _tiles(data, shown)),
        _gallery(data),
        page.section("How to read this", _how_to_read()),
        page.section(
            "Data and lineage", _counts(data, shown) + "<h3>Made from</h3>" + _lineage(data)
        ),
    ]
    return page.document("StreetVision evaluation on VAL_TEST", "".join(parts))


def number(value: float | None) -> str:
    """Three decimals, or "none"."""
    return "none" if value is None else f"{value:.3f}"


def interval(bounds: tuple[float, float] | None) -> str:
    """Both ends with three decimals, or "none"."""
    return "none" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def _n_groups(result: PolicyResult) -> int:
    return len(set(result.predictions.groups))


def _head(data: ReportData, shown: PolicyResult) -> str:
    truth = shown.predictions.truth
    other, positive = data.class_names
    facts = (
        f"{len(truth)} images from {_n_groups(shown)} groups: {int(truth.sum())} {positive},"
        f" {int((~truth).sum())} {other}. No earlier step has seen them."
    )
    cards = "".join(
        f'<div class="card"><dt>{title}</dt><dd'
        f' class="big">{number(shown.metrics[name]["value"])}</dd>'
        f"<dd><small>{interval(shown.metrics[name]['interval_95'])}</small></dd></div>"
        for name, title in _CARDS.items()
    )
    return (
        '<header><div class="eyebrow">StreetVision · VAL_TEST</div><h1>Evaluation'
        f" report</h1><p>{escape(facts)}</p><p>Policy <b>{escape(shown.policy.kind)}</b>:"
        f' {escape(shown.threshold)}.</p><dl class="cards">{cards}</dl></header>\n'
    )


def _metric_table(data: ReportData) -> str:
    names = list(data.policies)
    head = ["metric", *(["value", "95 % interval", "0 to 1"] if len(names) == 1 else names)]
    return page.table("Metrics on VAL_TEST", head, _metric_rows(data, len(head)))


def _metric_rows(data: ReportData, n_columns: int) -> Iterator[str]:
    question = ""
    for row in ROWS:
        if row.question != question:
            question = row.question
            yield page.part(question, n_columns)
        entries = [result.metrics[row.name] for result in data.policies.values()]
        cells = (
            _detailed(row, entries[0])
            if len(entries) == 1
            else [_compact(entry) for entry in entries]
        )
        title = row.title.format_map(vars(data.targets))
        yield page.row(f"{title} {'↑' if row.larger_is_better else '↓'}", cells)


def _detailed(row: Row, entry: Entry) -> list[str]:
    value, bounds = entry["value"], entry["interval_95"]
    bounded = row.name != "nll" and value is not None and bounds is not None
    track = (
        page.track(bounds[0], value, bounds[1]) if bounded and bounds and value is not None else ""
    )
    return [f"<b>{number(value)}</b>", interval(bounds), track]


def _compact(entry: Entry) -> str:
    return f"<b>{number(entry['value'])}</b> <small>{interval(entry['interval_95'])}</small>"


def _student_section(data: ReportData) -> str:
    if not data.students:
        return ""
    forms = {
        "all views": next(iter(data.policies.values())).metrics,
        "student": data.students[0].metrics,
    }
    rows = [
        page.row(title, [page.measured(**metrics_of[name]) for metrics_of in forms.values()])
        for name, title in _CARDS.items()
    ]
    note = (
        "The student sees the whole image alone; it is what transformers' stock pipeline runs. Both"
        " at own thresholds."
    )
    return page.section(
        "Student",
        page.table("All views against the whole image alone", ["metric", *forms], rows),
        note,
    )


def _confusion(data: ReportData, shown: PolicyResult) -> str:
    tn, fp, fn, tp = (
        int(cell) for cell in metrics.confusion(shown.predictions.truth, shown.predictions.decision)
    )
    matrix = page.matrix("Confusion matrix", data.class_names, ((tn, fp), (fn, tp)))
    return page.tile(
        "Confusion matrix",
        matrix,
        "Images by truth (rows) and answer (columns); shares are of the row.",
    )


def _tiles(data: ReportData, shown: PolicyResult) -> str:
    predictions = shown.predictions
    drawn = (
        plots.roc(predictions),
        plots.precision_recall(predictions),
        plots.reliability(predictions),
        plots.score_histogram(predictions, shown.policy.threshold, data.class_names),
        plots.risk_coverage(
            {name: result.predictions for name, result in data.policies.items()},
            {
                name: result.band
                for name, result in data.policies.items()
                if result.band is not None
            },
        ),
    )
    tiles = "".join(page.tile(plot.title, plot.svg, plot.note, plot.key) for plot in drawn)
    return f'<div class="plots">{_confusion(data, shown)}{tiles}</div>'


def _gallery(data: ReportData) -> str:
    if not data.hard:
        return page.section("Hard examples", "", "The policy made no error on VAL_TEST.")
    figures = "".join(_hard_figure(item) for item in data.hard)
    note = (
        "The errors the policy was surest of, worst first, squeezed to the square that the model"
        f" sees. The score is the probability of {data.class_names[1]}."
    )
    return page.section("Hard examples", f'<div class="gallery">{figures}</div>', note)


def _hard_figure(item: HardExample) -> str:
    kind = "missed" if item.missed else "false alarm"
    image = page.picture(item.image, f"{kind}: {item.path}")
    return (
        f'<figure class="tile">{image}<figcaption><span class="tag">{kind}</span> '
        f'<span class="said">is {escape(item.label)}, answered {escape(item.decision)}, score '
        f"{item.probability:.3f}</span><br>{escape(item.path)}<br><code>{escape(item.sample_id)}</code></figcaption>"
        "</figure>\n"
    )


def _how_to_read() -> str:
    entries = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in _READ.items()
    )
    return f'<dl class="read">{entries}</dl>'


def _counts(data: ReportData, shown: PolicyResult) -> str:
    truth, (other, positive) = shown.predictions.truth, data.class_names
    facts: dict[str, object] = {
        "VAL_TEST images": len(truth),
        f"VAL_TEST {positive}": int(truth.sum()),
        f"VAL_TEST {other}": int((~truth).sum()),
        "VAL_TEST groups": _n_groups(shown),
    }
    facts |= {
        f"dataset {name.removeprefix('n_').replace('_', ' ')}": value
        for name, value in data.counts.items()
    }
    rows = (page.row(key, [_shown(value)]) for key, value in facts.items())
    return page.table("Counts of VAL_TEST and of the dataset", ["what", "how many"], rows)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{escape(str(count))} {escape(str(name))}" for name, count in value.items()
        )
    if isinstance(value, list | tuple):
        return escape(", ".join(str(item) for item in value))
    return escape(str(value))


def _lineage(data: ReportData) -> str:
    rows = (
        page.row(
            name.replace("_", " "),
            [
                escape(manifest.step),
                f"<code>{escape(manifest.content_digest)}</code>",
                f"<code>{escape(manifest.code_version)}</code>",
            ],
        )
        for name, manifest in data.lineage.items()
    )
    return page.table(
        "What this evaluation was made from", ["input", "made by", "content SHA-256", "code"], rows
    )
