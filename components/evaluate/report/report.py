"""The HTML report of an evaluation: one self-contained file for any screen, light or dark.

The templates lie in `templates/`. Text is escaped there; the report contains neither scripts nor
links, and its Content-Security-Policy allows none.
"""

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jinja2
import numpy as np

from components.evaluate.report import plots
from components.evaluate.report.cascade import CascadeReport
from components.evaluate.report.early_exit_report import EarlyExitResult
from components.evaluate.report.evidence import Evidence
from components.evaluate.report.guarantees import PER_GROUP, Guarantee, PolicyComparison
from components.evaluate.report.per_class import COLUMNS, ClassResult
from components.evaluate.report.robustness import Robustness
from components.evaluate.report.scorecard import Entry, metric_groups, metrics_of
from components.evaluate.report.slices import SliceReport
from components.evaluate.targets import Targets
from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.outcomes import BINARY, MULTICLASS
from components.shared.contracts.pages import templates
from components.shared.policies.policy import Policy, ScrcPolicy
from components.shared.policies.predictions import Predictions, question
from components.shared.stats import jackknife, multiclass
from components.shared.stats.bootstrap import Interval
from components.shared.stats.metrics import Integers

_HEADLINE = {
    BINARY: ("accuracy", "mcc", "auroc", "ece_top_label"),
    MULTICLASS: ("accuracy", "f1_macro", "auroc_macro", "ece_top_label"),
}
_MAX_NAMED_COLUMNS = 8  # of a confusion matrix; more are numbered, or their names have no room
_N_CONFUSIONS = 12  # most frequent confusions that are listed
_MAX_SLICES = 40  # worst slices in the table; all of them are in eval_report.json
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class PolicyResult:
    """One policy on VAL_TEST.

    Attributes:
        policy: the policy.
        predictions: its decisions.
        metrics: by name.
        classes: a row for each outcome, of the policy that is shown in detail.
        calibration_p_value: of the test that its probabilities are calibrated; None with too few
            groups.
        uncalibrated_reason: why it has no calibrator; empty where it has one, or none was wanted.
        band: of the risk-coverage curve.
    """

    policy: Policy
    predictions: Predictions
    metrics: Mapping[str, Entry]
    classes: Sequence[ClassResult] = ()
    calibration_p_value: float | None = None
    uncalibrated_reason: str = ""
    band: plots.Band | None = None

    @property
    def rule(self) -> str:
        """The decision rule in words."""
        outcomes, threshold = self.policy.outcomes, self.policy.threshold
        if outcomes.positive is not None:
            rest = "" if len(outcomes.class_names) == 2 else ", against all other classes,"
            rule = f"{outcomes.positive_class}{rest} if its probability exceeds {threshold:.4f}"
        else:
            rule = "the most probable class"

        # The most probable of K classes always has a probability of 1 / K.
        may_defer = outcomes.positive is None and threshold * len(outcomes.names) > 1 + 1e-6
        if self.policy.kind != "softmax":
            rule += "; uncertain images are deferred"
        elif may_defer:
            rule += f"; images where its probability is below {threshold:.4f} are deferred"
        if isinstance(self.policy, ScrcPolicy) and self.policy.single_from is not None:
            rule += "; an answer may name several classes"

        return rule

    @property
    def calibration(self) -> str:
        """Where the probabilities come from, in words."""
        calibrator = self.policy.calibrator
        if calibrator is not None:
            return f"calibrated on VAL_CALIB by {calibrator.NAME}"
        reason = self.uncalibrated_reason
        return f"the model's own; {reason or 'no calibrator was better, or none could be fitted'}"

    @property
    def calibration_verdict(self) -> str:
        """Whether miscalibration is more than noise."""
        if self.calibration_p_value is None:
            return "too few groups"
        more = (
            "more than noise" if self.calibration_p_value <= _SIGNIFICANT else "no more than noise"
        )
        return f"p = {self.calibration_p_value:.3f}: {more}"

    @property
    def confusion(self) -> Integers:
        """(K, K) int64 counts of images: rows are true outcomes, columns decisions."""
        shown = self.predictions
        return multiclass.confusion_matrix(shown.truth, shown.decision, shown.n_outcomes)


@dataclass(frozen=True)
class HardExample:
    """An error with high confidence.

    Attributes:
        sample_id: of the image.
        source: of the image.
        path: of the image's file.
        group: of the image.
        label: name of the true outcome.
        decision: name of the outcome that was decided for.
        probability: of the decision.
        probability_of_label: of the true outcome.
        confidence: of the decision, by which examples are ranked.
        error: "missed" or "false alarm" of a binary task, else "wrong".
        thumbnail: JPEG of the image; empty where there is none.
        evidence: what spoke for the answer, where it is known.
    """

    sample_id: str
    source: str
    path: str
    group: str
    label: str
    decision: str
    probability: float
    probability_of_label: float
    confidence: float
    error: str
    thumbnail: bytes
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Confusion:
    """A frequent confusion: images of one class that are decided to be of another."""

    label: str
    decision: str
    count: int
    fraction: float


@dataclass(frozen=True)
class ReportData:
    """Context of the template.

    Attributes:
        policies: results by kind; the first is shown in detail, all are compared.
        hard: errors with the highest confidence, worst first.
        counts: summary of the whole dataset.
        lineage: manifest of each input.
        targets: operating points of the metrics.
        n_bootstrap: replicates of the intervals that are drawn.
        guarantees: of the policies that defer.
        infeasible: reason by kind of policy.
        bundled: kind of the policy to be bundled; the report says so where it is infeasible.
        comparisons: with the model's confidence, by kind of policy.
        early_exits: of multi-view models.
        robustness: of policies whose logits cover corrupted images.
        distilled_head: of a multi-view model that has one.
        slices: of the policy that is shown in detail; None without any.
        cascade: with stage 2, where its logits were given.
    """

    policies: Mapping[str, PolicyResult]
    hard: Sequence[HardExample]
    counts: Mapping[str, object]
    lineage: Mapping[str, Manifest]
    targets: Targets
    n_bootstrap: int
    guarantees: Sequence[Guarantee] = ()
    infeasible: Mapping[str, str] = field(default_factory=dict)
    bundled: str = "softmax"
    comparisons: Mapping[str, PolicyComparison] = field(default_factory=dict)
    early_exits: Sequence[EarlyExitResult] = ()
    robustness: Sequence[Robustness] = ()
    distilled_head: PolicyResult | None = None
    slices: SliceReport | None = None
    cascade: CascadeReport | None = None

    @property
    def shown(self) -> PolicyResult:
        """The result of the policy that is shown in detail."""
        return next(iter(self.policies.values()))


class Thumbnail(NamedTuple):
    """A JPEG for a data URI."""

    width: int
    height: int
    base64: str


def render(data: ReportData) -> str:
    """Return the HTML document; the same data give the same bytes."""
    predictions = data.shown.predictions
    task = predictions.outcomes.task
    table = metrics_of(task)
    return _template().render(
        **vars(data),
        shown=data.shown,
        outcomes=predictions.outcomes,
        question=question(predictions.outcomes),
        class_names=predictions.outcomes.names,
        n_images=len(predictions.truth),
        absent=[name for name, count in predictions.counts.items() if not count],
        few_groups=predictions.n_groups < jackknife.MIN_GROUPS,
        min_groups=jackknife.MIN_GROUPS,
        headline=[table[name] for name in _HEADLINE[task]],
        metric_groups=metric_groups(task),
        class_columns=COLUMNS,
        per_group=PER_GROUP,
        max_slices=_MAX_SLICES,
        named_columns=len(predictions.outcomes.names) <= _MAX_NAMED_COLUMNS,
        confusions=_most_frequent(data.shown),
        plots=_plots(data),
    )


def number(value: float | None, digits: int = 3) -> str:
    """Return `digits` decimals, or "none"."""
    return "none" if value is None else f"{value:z.{digits}f}"


def interval(bounds: Interval, n_groups: int, digits: int = 3) -> str:
    """Return both ends with `digits` decimals, or in two words why there is no interval."""
    if bounds is not None:
        return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"
    return "too few groups" if n_groups < jackknife.MIN_GROUPS else "no interval"


def spread(entry: Entry, n_groups: int, digits: int = 3) -> str:
    """Return the interval of a metric, or the band of a calibration error, as text."""
    if "calibrated_95" not in entry:
        return interval(entry["interval_95"], n_groups, digits)
    band = entry["calibrated_95"]
    if band is None:
        return interval(None, n_groups)
    return f"noise: up to {band[1]:.{digits}f}"


@functools.cache
def _template() -> jinja2.Template:
    environment = templates("components.evaluate.report.templates")
    environment.filters |= {
        "number": number,
        "interval": interval,
        "spread": spread,
        "clamp": _clamp,
        "label": _label,
        "listing": _listing,
        "thumbnail": _thumbnail,
        "base64": _base64,
    }
    return environment.get_template("report.html.jinja")


def _plots(data: ReportData) -> list[plots.Plot]:
    predictions, policy = data.shown.predictions, data.shown.policy
    bands = {name: result.band for name, result in data.policies.items() if result.band is not None}
    compared = {name: result.predictions for name, result in data.policies.items()}
    risk_coverage = plots.risk_coverage(compared, bands)

    if predictions.margin is None:
        answers_from = policy.threshold if policy.kind == "softmax" else None
        return [
            plots.reliability(predictions),
            plots.confidence_histogram(predictions, answers_from),
            risk_coverage,
        ]
    return [
        plots.roc(predictions),
        plots.precision_recall(predictions),
        plots.reliability(predictions),
        plots.score_histogram(predictions, policy.threshold),
        risk_coverage,
    ]


def _most_frequent(result: PolicyResult) -> list[Confusion]:
    """Return the pairs of classes that are confused most often, most frequent first."""
    matrix, names = result.confusion, result.predictions.outcomes.names
    of_class = matrix.sum(axis=1)
    wrong = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    order = np.argsort(-wrong.ravel(), kind="stable")[:_N_CONFUSIONS].tolist()
    pairs = [divmod(cell, len(names)) for cell in order]
    return [
        Confusion(
            names[row], names[column], int(wrong[row, column]), wrong[row, column] / of_class[row]
        )
        for row, column in pairs
        if wrong[row, column] > 0
    ]


def _clamp(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _label(name: str) -> str:
    """Return the words of a key: "n_per_class" is "per class"."""
    return name.removeprefix("n_").replace("_", " ")


def _listing(value: object) -> str:
    """Return a count, a list of names, counts by name, or rows of labels, as one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
        return ", ".join(_label_row(item) for item in value)
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def _label_row(row: Mapping[str, object]) -> str:
    """Return one of `label_rows` of ingest_dataset."""
    return f"{row['label']} -> {row['class']}: {row['count']} ({row['source']})"


def _thumbnail(jpeg: bytes) -> Thumbnail:
    """Return a JPEG with its size, for a data URI."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as picture:
        return Thumbnail(picture.width, picture.height, _base64(jpeg))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
