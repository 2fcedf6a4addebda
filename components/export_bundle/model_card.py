"""Model cards: README.md with the Hub's metadata and model index, and NATIX's model_card.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from components.export_bundle.config import ExportConfig, slug
from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.formats import ONNX, ONNX_INT8
from components.shared.contracts.machine import n_usable_cores
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logit_affine import LogitAffine
from components.shared.policies.policy import Policy
from components.shared.serving.bundle import DISTILLED_MODEL, MODEL

# The package's full name, so that the files of its folder belong to the phase's image.
_TEMPLATES = "components.export_bundle.templates"
_TASK = "image-classification"
# Metrics that https://huggingface.co/metrics knows under another name.
_HUB_METRICS = {
    "auroc": "roc_auc",
    "brier": "brier_score",
    "mcc": "matthews_correlation",
}
_NAME_OF_RISK = {"error": "error rate", "fnr": "false negative rate"}
# Metrics of the table of forms, with their titles.
FORM_METRICS = {"accuracy": "accuracy", "mcc": "MCC", "auroc": "AUROC"}
# Classes that a sentence names; more are counted.
_N_NAMED = 8


@dataclass(frozen=True)
class Form:
    """One form of the model in the bundle.

    Attributes:
        folder: Its folder.
        n_bytes: Size of its files.
        scores: By metric, the value on VAL_TEST; None where it has none.
        differences: By metric, the paired difference to the first form and its 95 % interval; empty
            for a form that decides alike.
        latency_ms: Median time of an image on the reference machine; None where none was measured.
    """

    folder: str
    n_bytes: int
    scores: dict[str, float | None]
    differences: dict[str, tuple[float | None, tuple[float, float] | None]]
    latency_ms: float | None

    def cell(self, metric: str) -> str:
        """Return a metric with its difference, as a cell of a table."""
        text = _number(self.scores.get(metric))
        difference, bounds = self.differences.get(metric, (None, None))
        if difference is None:
            return text
        within = "no interval" if bounds is None else f"{bounds[0]:+.4f} to {bounds[1]:+.4f}"
        return f"{text} ({difference:+z.4f}: {within})"


def bundle_forms(
    bundle: Path,
    report: dict[str, Any],
    int8: dict[str, Any],
    latencies: Mapping[str, float] | None = None,
) -> list[Form]:
    """Return the forms in a bundle on disk.

    Args:
        bundle: The directory.
        report: eval_report.json.
        int8: Metrics of the INT8 form as its format.json has them; empty where there is none.
        latencies: By folder, milliseconds of an image on the reference machine.
    """
    latencies = latencies or {}
    of_model = {name: entry["value"] for name, entry in report["metrics"].items()}
    # A graph decides as the model, or is not exported.
    scores = {MODEL: of_model, ONNX: of_model}
    if "student" in report:
        student = report["student"]
        scores[DISTILLED_MODEL] = {name: entry["value"] for name, entry in student.items()}

    differences: dict[str, dict[str, Any]] = {}
    if int8:
        scores[ONNX_INT8] = {name: entry["int8"] for name, entry in int8["metrics"].items()}
        differences[ONNX_INT8] = {
            name: (entry["difference"], entry["difference_95"])
            for name, entry in int8["metrics"].items()
        }

    return [
        Form(
            folder,
            _size(bundle / folder),
            of_form,
            differences.get(folder, {}),
            latencies.get(folder),
        )
        for folder, of_form in scores.items()
        if (bundle / folder).is_dir()
    ]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def model_card(
    config: ExportConfig,
    policy: Policy,
    report: dict[str, Any],
    dataset: Manifest,
    preprocessing: dict[str, Any],
    *,
    affine: LogitAffine,
    stock_reason: str,
    distilled: bool,
    forms: Sequence[Form],
    n_near: int = 0,
    refused_formats: Mapping[str, str],
) -> str:
    """Return the Markdown of README.md: data, metrics with intervals, decision, use and limits.

    Args:
        config: name, version and description, none of them automatic.
        policy: the one of the bundle.
        report: eval_report.json.
        dataset: manifest of the ImageDataset; its summary holds the counts.
        preprocessing: preprocessing.json.
        affine: the part of calibrator and threshold that the weights contain.
        stock_reason: why transformers' stock pipeline cannot load the model; empty if it can.
        distilled: whether the bundle holds the distilled head as a stock model.
        forms: what `bundle_forms` returns.
        n_near: images so near a threshold that only their margins were compared with onnx/.
        refused_formats: formats that were asked for, and why the bundle is without them.
    """
    outcomes, kind = policy.outcomes, policy.kind
    guarantees = report.get("policies", {}).get(kind, {}).get("guarantees", [])
    card = ModelCard.from_template(
        _metadata(config, outcomes, report, dataset, stock=not stock_reason),
        template_str=(files(_TEMPLATES) / "model_card.md.jinja").read_text(encoding="utf-8"),
        config=config,
        report=report,
        counts=dataset.summary,
        preprocessing=preprocessing,
        size=preprocessing["image_size"],
        views=preprocessing.get("views"),
        policy=policy,
        outcomes=outcomes,
        rest=[name for name in outcomes.class_names if name != outcomes.positive_class],
        guarantees=guarantees,
        max_group_images=policy.to_json().get("max_group_images"),
        risk=_NAME_OF_RISK.get(getattr(policy, "risk", "")),
        affine=affine,
        stock_reason=stock_reason,
        distilled=distilled,
        forms=forms,
        form_metrics=FORM_METRICS,
        n_near=n_near,
        n_cores=n_usable_cores(),
        refused_formats=refused_formats,
        number=_number,
        interval=_interval,
        listing=_listing,
        code=_code,
    )
    return f"{str(card).rstrip()}\n"


def natix_card(config: ExportConfig) -> dict[str, Any]:
    """Return model_card.json of the NATIX StreetVision network."""
    return {
        "model_name": config.model_name,
        "description": config.description,
        "version": config.model_version,
        "submitted_by": config.submitted_by,
        "submission_time": config.submission_time,
    }


def _metadata(
    config: ExportConfig,
    outcomes: Outcomes,
    report: dict[str, Any],
    dataset: Manifest,
    *,
    stock: bool,
) -> ModelCardData:
    """Return the front matter; every metric with a value is an entry of the model index."""
    results = [
        EvalResult(
            task_type=_TASK,
            dataset_type="image-folder",
            dataset_name="street photographs",
            dataset_split=report["split"],
            dataset_revision=dataset.content_digest,
            metric_type=_HUB_METRICS.get(name, name),
            metric_name=name,
            metric_value=round(entry["value"], 4) + 0.0,  # no -0.0
        )
        for name, entry in report["metrics"].items()
        if entry["value"] is not None
    ]
    return ModelCardData(
        pipeline_tag=_TASK,
        library_name="transformers" if stock else None,
        inference=None if stock else False,
        tags=[tag for tag in (slug(outcomes.positive_class or ""), "street-scenes") if tag],
        model_name=config.model_name if results else None,
        eval_results=results or None,
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:z.4f}"


def _interval(entry: dict[str, Any]) -> str:
    """Return the interval of a metric, or what the noise of a calibration error stays below."""
    bounds, noise = entry["interval_95"], entry.get("calibrated_95")
    if bounds is not None:
        return f"{bounds[0]:.4f} to {bounds[1]:.4f}"
    return "none" if noise is None else f"of a calibrated model: up to {noise[1]:.4f}"


def _listing(names: Sequence[str]) -> str:
    """Return the names in a sentence, or how many they are."""
    if len(names) > _N_NAMED:
        return f"{len(names)} classes"
    quoted = [f"`{name}`" for name in names]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def _code(text: str) -> str:
    """Return a literal of Python."""
    return json.dumps(text, ensure_ascii=False)
