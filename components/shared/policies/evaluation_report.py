"""Reading of eval_report.json, the document of an Evaluation artifact."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.contracts.documents import as_type, read_object

DOCUMENT = "eval_report.json"
Interval = tuple[float, float]


@dataclass(frozen=True)
class _Metric:
    """Value of a metric with its interval, or with what noise makes of a calibration error."""

    value: float | None
    interval_95: Interval | None
    calibrated_95: Interval | None = None


@dataclass(frozen=True)
class _Core:
    """What readers of a report use of it, whichever version wrote it."""

    split: str
    n_samples: int
    n_groups: int
    policy: dict[str, Any]
    policies: dict[str, dict[str, Any]]
    metrics: dict[str, _Metric]
    student: dict[str, _Metric] | None = None


def read_report(evaluation: Path) -> dict[str, Any]:
    """Read the report of a verified Evaluation artifact.

    Returns:
        The document. Its split, counts, policy and metrics have been checked.

    Raises:
        ArtifactError: The document is malformed; the message names the entries.
    """
    file = evaluation / DOCUMENT
    document = read_object(file, dict[str, Any])
    core = {name: document[name] for name in _Core.__dataclass_fields__ if name in document}
    as_type(core, _Core, str(file))

    for kind, entry in document["policies"].items():
        where = f"{file}: policies.{kind}.guarantees"
        as_type(entry.get("guarantees", []), list[dict[str, Any]], where)

    return document
