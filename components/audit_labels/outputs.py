"""The files of a LabelAudit: tables for a person, who may hand them back to ingest_dataset.

`suspects.csv`, `outliers.csv` and `images.csv` have the column `id`, by which `exclude` and
`relabel` of ingest_dataset know images.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.audit_labels.audited import Audited
from components.audit_labels.cross_fit import CrossFitted
from components.audit_labels.findings import Findings
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.tables import write_table

Rows = Iterator[Sequence[object]]

_EXAMPLES = 5  # of a cluster


def summary_of(
    audited: Audited, fitted: CrossFitted | None, findings: Findings | None, reason: str
) -> dict[str, Any]:
    """Return the document of audit.json; `reason`: why nothing could be audited, or empty."""
    names = audited.data.class_names
    labels = audited.labels.tolist()
    document: dict[str, Any] = {
        "n_images": len(audited.samples),
        "n_groups": len(set(audited.groups)),
        "n_per_split": {split: audited.splits.count(split) for split in ("TRAIN", "VAL_SELECT")},
        "n_per_class": {name: labels.count(number) for number, name in enumerate(names)},
        "infeasible": reason or None,
    }
    if fitted is not None and findings is not None:
        document |= {
            "n_suspects": len(findings.suspects),
            "n_outliers": len(findings.outliers),
            "n_near_duplicate_pairs": len(findings.near_duplicates),
            "n_clusters": len(findings.clusters),
            "n_worse_clusters": sum(cluster.is_worse for cluster in findings.clusters),
            "mean_score": round(float(findings.scores.mean()), 6),
            "head": {
                "n_folds": fitted.n_folds,
                "inverse_penalty": fitted.inverse_penalty,
                "log_loss": fitted.log_loss,
                "log_loss_of_frequencies": fitted.log_loss_of_frequencies,
            },
        }
    return document


def write_audit(
    directory: Path, audited: Audited, findings: Findings | None, summary: dict[str, Any]
) -> None:
    """Write all tables and audit.json into the artifact's staging directory.

    Where nothing could be audited, the tables have no rows.
    """
    write_json(directory / "audit.json", summary)
    for name, (columns, rows) in _TABLES.items():
        found = () if findings is None else rows(audited, findings)
        write_table(directory / name, columns, found, for_people=True)


def _suspects(audited: Audited, findings: Findings) -> Rows:
    names = audited.data.class_names
    for row in findings.suspects.tolist():
        sample, suggested = audited.samples[row], names[int(findings.suggested[row])]
        given, score = names[sample.label], findings.scores[row]
        yield sample.sample_id, sample.path, given, suggested, score, *_place(audited, row)


def _outliers(audited: Audited, findings: Findings) -> Rows:
    for row in findings.outliers.tolist():
        sample = audited.samples[row]
        label, score = audited.data.class_names[sample.label], findings.outlier_scores[row]
        yield sample.sample_id, sample.path, label, score, *_place(audited, row)


def _pairs(audited: Audited, findings: Findings) -> Rows:
    for pair in findings.near_duplicates:
        cells: list[object] = [pair.distance]
        for row in (pair.first, pair.second):
            sample = audited.samples[row]
            cells += [sample.sample_id, sample.path, audited.data.class_names[sample.label]]
            cells += _place(audited, row)
        yield cells


def _clusters(audited: Audited, findings: Findings) -> Rows:
    for number, cluster in enumerate(findings.clusters, start=1):
        bounds = [f"{end:.6f}" for end in cluster.interval_95 or ()] or ["", ""]
        worst = [audited.samples[row].sample_id for row in cluster.rows[:_EXAMPLES].tolist()]
        counts = len(cluster.rows), cluster.n_groups
        yield number, *counts, cluster.score, *bounds, " ".join(worst)


def _images(audited: Audited, findings: Findings) -> Rows:
    cluster_of = {
        row: number
        for number, cluster in enumerate(findings.clusters, start=1)
        for row in cluster.rows.tolist()
    }
    for row, sample in enumerate(audited.samples):
        label = audited.data.class_names[sample.label]
        scores = findings.scores[row], findings.outlier_scores[row]
        yield sample.sample_id, sample.path, label, *scores, cluster_of[row], *_place(audited, row)


def _place(audited: Audited, row: int) -> tuple[str, str, str]:
    sample = audited.samples[row]
    return sample.source, audited.splits[row], sample.group


_PLACE = ("source", "split", "group")
_TABLES: dict[str, tuple[tuple[str, ...], Callable[[Audited, Findings], Rows]]] = {
    "suspects.csv": (
        ("id", "path", "given_label", "suggested_label", "score", *_PLACE),
        _suspects,
    ),
    "outliers.csv": (("id", "path", "given_label", "outlier_score", *_PLACE), _outliers),
    "near_duplicates.csv": (
        (
            "distance",
            *(f"{column}_{side}" for side in "ab" for column in ("id", "path", "label", *_PLACE)),
        ),
        _pairs,
    ),
    "clusters.csv": (
        ("cluster", "n_images", "n_groups", "score", "low_95", "high_95", "worst_images"),
        _clusters,
    ),
    "images.csv": (
        ("id", "path", "given_label", "score", "outlier_score", "cluster", *_PLACE),
        _images,
    ),
}
