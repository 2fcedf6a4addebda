"""What must a person know before using the model? The model card, and the one NATIX asks for."""

from typing import Any

from components.export_bundle.config import ExportConfig


def readme(
    config: ExportConfig,
    report: dict[str, Any],
    counts: dict[str, Any],
    preprocessing: dict[str, Any],
    reason: str,
    *,
    student: bool,
) -> str:
    """Markdown with the Hub's front matter: data, metrics with intervals, use, intended use,
    limits.

    `report` is eval_report.json, `counts` the dataset's summary, `reason` why the stock pipeline
    cannot load the model.
    """
    policy = report["policy"]
    rows = "\n".join(
        f"| {name} | {_number(entry['value'])} | {_interval(entry['interval_95'])} |"
        for name, entry in report["metrics"].items()
    )
    per_class = ", ".join(f"{count} {name}" for name, count in counts["n_per_class"].items())
    size = preprocessing["image_size"]
    limit = _limit(preprocessing) + " Not for safety decisions."
    use = _stock_use() if not reason else f"The stock pipeline cannot load it: {reason}."
    use += _student_use(report) if student else ""
    return f"""---
pipeline_tag: image-classification
{"library_name: transformers" if not reason else "inference: false"}
tags:
- roadwork
- street-scenes
---
# {config.model_name} {config.model_version}

{config.description}

A {preprocessing["backbone_type"]} backbone with one linear layer on [CLS; mean patch token]. Input: RGB, upright,
squeezed to {size} x {size} by Pillow's bicubic filter (`preprocessing.json`).{_views(preprocessing)}

## Data
{counts["n_samples"]} images ({per_class}) in {counts["n_groups"]} groups; {counts["n_rejected"]} files were rejected,
{counts["n_exact_duplicates"]} exact copies left out. Groups never cross splits.

## Metrics on {report["split"]}
{report["n_samples"]} images, {report["n_positive"]} positive, {report["n_groups"]} groups.
The 95 % intervals come from resampling groups. Neither training nor the threshold has seen these images.

| metric | value | 95 % interval |
|---|---|---|
{rows}

## Decision
{_decision(policy, several="views" in preprocessing)}

## Use
{use}

`python -m components.shared.serving.predict BUNDLE IMAGE...` verifies the bundle and prints one JSON line per image, with the
probability before the threshold was folded in.

## Intended use and limits
Deciding whether a street photograph shows roadwork, as the first stage of a cascade. The figures hold for images like
those above; other cameras, countries, seasons or labelling rules need their own evaluation. {limit}
"""


def _views(preprocessing: dict[str, Any]) -> str:
    """How the image is cut and what is made of the views; nothing where it is seen as a whole."""
    if "views" not in preprocessing:
        return ""
    views = preprocessing["views"]
    mirrored = ", all of them also mirrored" if views["flips"] else ""
    return (
        f"\nThe model looks at the whole image and at {len(preprocessing['tiles'])} tiles of"
        f" it{mirrored}, each as {views['size']} x {views['size']}\npixels, and aggregates their"
        f" margins ({views['aggregation']}). The metrics below are those of all"
        " views;\n`early_exit.json`, where it is there, says when the whole image is enough."
    )


def _limit(preprocessing: dict[str, Any]) -> str:
    size = preprocessing["image_size"]
    if "views" in preprocessing:
        side = preprocessing["tiles"][0][2]
        return (
            f"Roadwork that covers\nfew pixels even of a tile (a square of {side} of {size} pixels)"
            " is easily missed."
        )
    return (
        f"The whole image is looked\nat once: roadwork that covers few of the {size} x {size}"
        " pixels is easily missed."
    )


def _decision(policy: dict[str, Any], *, several: bool) -> str:
    """The rule, and for a policy that defers its promise."""
    text = (
        f"`{policy['positive_class']}` where its probability exceeds {policy['threshold']:.6f},"
        " fitted on VAL_CALIB (`policy.json`).\n"
    )
    if policy["kind"] != "softmax":
        what = "error rate" if policy["risk"] == "error" else "false negative rate"
        text += (
            f"The policy `{policy['kind']}` defers images to stage 2. With probability"
            f" {1 - policy['delta']:g} the\n{what} among answered images is at most"
            f" {policy['alpha']:g}, and with that probability at\nleast"
            f" {policy['coverage_lower_bound']:.3f} of the images are answered. Both hold for a"
            " random image\nof a random group, drawn as those of VAL_CALIB were; not under"
            " drift.\n"
        )
    if several:
        return (
            text + "The weights in `model/` are as trained: the policy decides on the margin of all"
            " views."
        )
    return (
        text
        + "The weights in `model/` carry this threshold: the probability they give is above 0.5"
        " exactly then,\nand is not the probability that the calibration metrics above are about."
        " They never defer."
    )


def natix_card(config: ExportConfig) -> dict[str, Any]:
    """model_card.json of the NATIX StreetVision network."""
    return {
        "model_name": config.model_name,
        "description": config.description,
        "version": config.model_version,
        "submitted_by": config.submitted_by,
        "submission_time": config.submission_time,
    }


def _stock_use() -> str:
    return """```python
from transformers import pipeline

classify = pipeline("image-classification", model="model")
{answer["label"]: answer["score"] for answer in classify("photo.jpg")}["Roadwork"] > 0.5
```

As a Hub repository: the files of `model/`, this file and `model_card.json` side by side."""


def _student_use(report: dict[str, Any]) -> str:
    """What the stock form of one image is, and what either form scored."""
    forms = {"all views (`model/`)": report["metrics"], "student (`student/`)": report["student"]}
    rows = "\n".join(
        f"| {form} | "
        + " | ".join(_number(values[name]["value"]) for name in ("accuracy", "mcc", "auroc"))
        + " |"
        for form, values in forms.items()
    )
    return f"""

`student/` is a stock model of the whole image alone, distilled from all views on TRAIN, with a threshold of its own
folded in. On {report["split"]}:

| form | accuracy | MCC | AUROC |
|---|---|---|---|
{rows}"""


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _interval(bounds: list[float] | None) -> str:
    return "none" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
