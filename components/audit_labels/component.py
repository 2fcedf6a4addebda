"""KFP interface of audit_labels."""

from kfp import dsl

from components.artifact_types import ImageDataset, LabelAudit, TrainFeatures, ValSelectFeatures
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def audit_labels(
    dataset: dsl.Input[ImageDataset],
    train_features: dsl.Input[TrainFeatures],
    val_select_features: dsl.Input[ValSelectFeatures],
    audit: dsl.Output[LabelAudit],
    report: dsl.Output[dsl.HTML],
    config: dict,
) -> None:
    """Find labels of TRAIN and VAL_SELECT that may be wrong, for a person to look at."""
    from components.audit_labels.step import run
    from components.shared.contracts.step import execute

    execute(
        run,
        config,
        dataset=dataset,
        train_features=train_features,
        val_select_features=val_select_features,
        audit=audit,
        report=report,
    )
