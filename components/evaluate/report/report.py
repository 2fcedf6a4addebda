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
import numpy.typing as npt

from components.evaluate.report import plots
from components.evaluate.report.early_exit_report import EarlyExitResult
from components.evaluate.report.guarantees import Guarantee, PolicyComparison
from components.evaluate.report.robustness import METRICS as ROBUSTNESS_METRICS
from components.evaluate.report.robustness import Robustness
from components.evaluate.report.scorecard import (
    METRIC_GROUPS,
    METRICS,
    Entry,
    Predictions,
)
from components.evaluate.targets import Targets
from components.shared.contracts.artifacts import Manifest
from components.shared.policies.policy import Policy
from components.shared.stats import metrics
from components.shared.stats.bootstrap import Interval

_HEADLINE = ("accuracy", "mcc", "auroc", "ece_top_label")
# With so few groups the bootstrap underestimates their variance: cluster methods need some tens.
_FEW_GROUPS = 20
_THUMBNAIL = 224  # pixels


@dataclass(frozen=True)
class PolicyResult:
    """One policy, its predictions on VAL_TEST and its metrics; band: of the risk-coverage curve."""

    policy: Policy
    predictions: Predictions
    metrics: Mapping[str, Entry]
    band: plots.Band | None = None

    @property
    def rule(self) -> str:
        """The decision rule in words."""
        positive, threshold = self.policy.outcomes.positive_class, self.policy.threshold
        rule = f"{positive} if its probability exceeds {threshold:.4f}"
        return rule if self.policy.kind == "softmax" else f"{rule}; uncertain images are deferred"

    @property
    def calibration(self) -> str:
        """Where the probabilities come from, in words."""
        calibrator = self.policy.calibrator
        if calibrator is None:
            return "the model's own; no calibrator was better on VAL_CALIB, or none could be fitted"
        return f"calibrated on VAL_CALIB by {calibrator.NAME}"

    @property
    def confusion(self) -> list[list[int]]:
        """[[TN, FP], [FN, TP]]: a row for each true class, the positive class last."""
        cells = metrics.confusion(self.predictions.truth, self.predictions.decision)
        tn, fp, fn, tp = (int(cell) for cell in cells)
        return [[tn, fp], [fn, tp]]


@dataclass(frozen=True)
class HardExample:
    """An error with high confidence. image: (S, S, 3) uint8; missed: a positive was not found."""

    sample_id: str
    source: str
    path: str
    group: str
    label: str
    decision: str
    probability: float
    margin: float
    missed: bool
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ReportData:
    """Context of the template.

    Attributes:
        class_names: (other class, positive class).
        policies: results by kind; the first is shown in detail, all are compared.
        hard: errors with the highest confidence, worst first.
        counts: summary of the whole dataset.
        lineage: manifest of each input.
        targets: operating points of the metrics.
        n_bootstrap: replicates of every interval.
        guarantees: of the policies that defer.
        infeasible: reason by kind of policy.
        bundled: kind of the policy to be bundled; the report says so where it is infeasible.
        comparisons: with the model's confidence, by kind of policy.
        early_exits: of multi-view models.
        robustness: of policies whose logits cover corrupted images.
        distilled_head: of a multi-view model that has one.
    """

    class_names: tuple[str, str]
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
    return _template().render(
        **vars(data),
        shown=data.shown,
        n_images=len(predictions.truth),
        n_positive=int(predictions.truth.sum()),
        few_groups=predictions.n_groups < _FEW_GROUPS,
        headline=[metric for metric in METRICS if metric.name in _HEADLINE],
        metric_groups=METRIC_GROUPS,
        robustness_metrics=tuple(ROBUSTNESS_METRICS),
        plots=_plots(data),
    )


def number(value: float | None) -> str:
    """Return three decimals, or "none"."""
    return "none" if value is None else f"{value:.3f}"


def interval(bounds: Interval, digits: int = 3) -> str:
    """Return both ends with `digits` decimals, or "none"."""
    return "none" if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        # The package's full name, so that the files of its folder belong to the phase's image.
        loader=jinja2.PackageLoader("components.evaluate.report.templates", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "interval": interval,
        "clamp": _clamp,
        "label": _label,
        "listing": _listing,
        "thumbnail": _thumbnail,
    }
    return environment.get_template("report.html.jinja")


def _plots(data: ReportData) -> list[plots.Plot]:
    predictions, policy = data.shown.predictions, data.shown.policy
    bands = {name: result.band for name, result in data.policies.items() if result.band is not None}
    compared = {name: result.predictions for name, result in data.policies.items()}
    return [
        plots.roc(predictions),
        plots.precision_recall(predictions),
        plots.reliability(predictions),
        plots.score_histogram(predictions, policy.threshold, data.class_names),
        plots.risk_coverage(compared, bands),
    ]


def _clamp(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _label(name: str) -> str:
    """Return the words of a key: "n_per_class" is "per class"."""
    return name.removeprefix("n_").replace("_", " ")


def _listing(value: object) -> str:
    """Return a count, a list of names, or counts by name, as one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def _thumbnail(image: npt.NDArray[np.uint8]) -> Thumbnail:
    """Return an image (S, S, 3) as a JPEG of at most 224 pixels a side."""
    from PIL import Image

    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    picture.save(buffer, format="JPEG", quality=80)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(picture.width, picture.height, encoded)
