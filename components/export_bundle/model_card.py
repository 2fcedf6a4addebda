"""What must a person know before using the model? The model card, and the one NATIX asks for."""

from typing import Any

from components.export_bundle.config import ExportConfig


def readme(config: ExportConfig, report: dict[str, Any], counts: dict[str, Any], stock: str | None) -> str:
    """Markdown with the Hub's front matter: data, metrics with intervals, intended use, limits."""
    policy = report["policy"]
    rows = "\n".join(
        f"| {name} | {_number(entry['value'])} | {_interval(entry['interval_95'])} |"
        for name, entry in report["metrics"].items()
    )
    per_class = ", ".join(f"{count} {name}" for name, count in counts["n_per_class"].items())
    use = (
        f'`pipeline("image-classification", model="model")`: P({policy["positive_class"]}) > 0.5 is the answer; '
        "the policy's threshold is folded into the weights."
        if stock is None
        else f"The stock pipeline cannot load it: {stock}."
    )
    return f"""---
pipeline_tag: image-classification
library_name: transformers
---
# {config.model_name} {config.model_version}

{config.description}

## Data
{counts["n_samples"]} images ({per_class}) in {counts["n_groups"]} groups; {counts["n_rejected"]} files were rejected,
{counts["n_exact_duplicates"]} exact copies left out. Groups never cross splits.

## Metrics on {report["split"]}
{report["n_samples"]} images, {report["n_positive"]} positive, {report["n_groups"]} groups.
The 95 % intervals come from resampling groups.

| metric | value | 95 % interval |
|---|---|---|
{rows}

## Use
{use}
`python -m components.shared.predict BUNDLE IMAGE...` verifies the bundle and prints one JSON line per image.

## Intended use and limits
Deciding whether a street photograph shows roadwork, as the first stage of a cascade. The figures hold for images like
those above; other cameras, countries, seasons or labelling rules need their own evaluation. Not for safety decisions.
"""


def natix_card(config: ExportConfig) -> dict[str, Any]:
    """model_card.json of the NATIX StreetVision network."""
    return {
        "model_name": config.model_name,
        "description": config.description,
        "version": config.model_version,
        "submitted_by": config.submitted_by,
        "submission_time": config.submission_time,
    }


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _interval(bounds: list[float] | None) -> str:
    return "none" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
