"""Looks for labels of TRAIN and VAL_SELECT that may be wrong, and changes none.

A head on the frozen backbone's features predicts each image from images of other groups, and
cleanlab compares its probabilities with the labels. A person looks at the gallery, and hands what
is wrong to ingest_dataset: `exclude`, `relabel`. VAL_CALIB and VAL_TEST are not looked at: whoever
corrects their labels by a model's opinion measures the model by itself.
"""

import shutil

from components.audit_labels.audited import Audited
from components.audit_labels.config import AuditLabelsConfig
from components.audit_labels.cross_fit import CrossFitted, cross_fitted, folds_by_group
from components.audit_labels.findings import Findings, find
from components.audit_labels.gallery import render
from components.audit_labels.outputs import summary_of, write_audit
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main

REPORT = "report.html"


def run(
    config: AuditLabelsConfig,
    *,
    dataset: InputDir,
    train_features: InputDir,
    val_select_features: InputDir,
    audit: OutputDir,
    report: OutputFile,
) -> None:
    """Write the LabelAudit and its HTML report.

    Where a class has too few groups to be predicted from others, the audit says so, and its tables
    are empty.

    Args:
        config: The options.
        dataset: The images.
        train_features: Features of TRAIN.
        val_select_features: Features of VAL_SELECT.
        audit: suspects.csv (id, path, given and suggested label, score, the worst first),
            outliers.csv, near_duplicates.csv, clusters.csv, images.csv (all that was audited),
            audit.json and the report.
        report: The report once more, for the UI.

    Raises:
        LeakageViolationError: Features of another split.
        ArtifactError: The features are empty, or of another data set.
    """
    audited = Audited.read(dataset, train_features, val_select_features)
    fitted, findings, reason = _audit(config, audited)
    summary = summary_of(audited, fitted, findings, reason)

    with writing(
        audit,
        kind=Kind.LABEL_AUDIT,
        step="audit_labels",
        config=config,
        inputs=audited.inputs,
        summary=summary,
    ) as out:
        write_audit(out, audited, findings, summary)
        page = render(audited, fitted, findings, summary, config.n_shown)
        (out / REPORT).write_text(page, encoding="utf-8")

    report.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(audit / REPORT, report)
    _print(findings, summary)


def _audit(
    config: AuditLabelsConfig, audited: Audited
) -> tuple[CrossFitted | None, Findings | None, str]:
    """Return predictions and findings, or why there are none."""
    labels = audited.labels
    folds = folds_by_group(
        labels, audited.groups, audited.data.class_names, config.n_folds, config.seed
    )
    if isinstance(folds, str):
        return None, None, folds

    fitted = cross_fitted(audited.features, labels, folds)
    return fitted, find(audited, fitted.probabilities, config.seed), ""


def _print(findings: Findings | None, summary: dict[str, object]) -> None:
    if findings is None:
        say(f"no label could be audited: {summary['infeasible']}")
        return
    say(
        f"{summary['n_images']} labels audited: {summary['n_suspects']} suspects,"
        f" {summary['n_outliers']} outliers, {summary['n_near_duplicate_pairs']} pairs of"
        f" near-duplicates, {summary['n_worse_clusters']} of {summary['n_clusters']} clusters fit"
        " worse than the rest"
    )


if __name__ == "__main__":
    main(run, AuditLabelsConfig)
