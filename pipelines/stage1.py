"""The stage-1 pipeline: from a data source to a deployable bundle."""

import inspect
from typing import Any, NamedTuple

from kfp import dsl

from components.compare_calibrators.component import compare_calibrators
from components.evaluate.component import evaluate
from components.export_bundle.component import export_bundle
from components.fingerprint_source.component import fingerprint_source
from components.fit_threshold.component import fit_threshold
from components.ingest_dataset.component import ingest_dataset
from components.shared.artifact_types import Bundle, Evaluation
from components.shared.component import documented
from components.split_dataset.component import split_dataset
from components.train_baseline.component import train_baseline
from pipelines import resources
from pipelines.parameters import PHASES, of_phase, pipeline_parameters

NAME = "streetvision-stage1"


class Outputs(NamedTuple):
    """What a run leaves."""

    bundle: Bundle
    evaluation: Evaluation
    report: dsl.HTML


def stage1(profile: resources.Profile) -> Any:
    """The pipeline for the resources of `profile`, as a KFP graph component."""

    def wire(values: dict[str, Any]) -> Outputs:
        source = resources.light(fingerprint_source(**of_phase("fingerprint_source", values)), profile)
        source.set_caching_options(enable_caching=False)  # it is what notices that the data changed
        ingest = ingest_dataset(source_fingerprint=source.outputs["data_digest"], **of_phase("ingest_dataset", values))
        resources.light(ingest, profile, memory="16Gi")
        dataset = ingest.outputs["dataset"]
        split = resources.light(split_dataset(dataset=dataset, **of_phase("split_dataset", values)), profile)
        train = train_baseline(
            dataset=dataset,
            splits=split.outputs["splits"],
            backbone_fingerprint=source.outputs["backbone_digest"],
            **of_phase("train_baseline", values),
        )
        resources.training(train, profile)
        calib_logits = train.outputs["val_calib_logits"]
        calibration = compare_calibrators(val_calib_logits=calib_logits, **of_phase("compare_calibrators", values))
        resources.light(calibration, profile)
        threshold = fit_threshold(
            val_calib_logits=calib_logits,
            calibration=calibration.outputs["calibration"],
            **of_phase("fit_threshold", values),
        )
        resources.light(threshold, profile)
        policy = threshold.outputs["policy"]
        evaluation = evaluate(
            val_test_logits=train.outputs["val_test_logits"],
            policy=policy,
            dataset=dataset,
            **of_phase("evaluate", values),
        )
        resources.light(evaluation, profile)
        bundle = export_bundle(
            checkpoint=train.outputs["checkpoint"],
            policy=policy,
            evaluation=evaluation.outputs["evaluation"],
            dataset=dataset,
            **of_phase("export_bundle", values),
        )
        resources.light(bundle, profile, memory="16Gi")
        return Outputs(bundle.outputs["bundle"], evaluation.outputs["evaluation"], evaluation.outputs["report"])

    return dsl.pipeline(name=NAME)(documented(*PHASES.values())(_with_signature(wire)))


def _with_signature(wire: Any) -> Any:
    """`wire` as the function KFP expects: one annotated parameter per pipeline parameter, called by position."""
    parameters = pipeline_parameters()

    def pipeline(*channels: Any) -> Outputs:
        """Train, calibrate, evaluate and bundle a selective roadwork classifier."""
        names = [parameter.name for parameter in parameters]
        outputs: Outputs = wire(dict(zip(names, channels, strict=True)))
        return outputs

    pipeline.__signature__ = inspect.Signature(parameters, return_annotation=Outputs)  # type: ignore[attr-defined]
    return pipeline
