"""The stage-1 pipeline: from a data source to a deployable bundle."""

import inspect
from typing import Any, NamedTuple

from kfp import dsl

from components.calibrate_gate.component import calibrate_gate
from components.calibrate_scrc.component import calibrate_scrc
from components.compare_calibrators.component import compare_calibrators
from components.evaluate.component import evaluate
from components.export_bundle.component import export_bundle
from components.fingerprint_source.component import fingerprint_source
from components.fit_threshold.component import fit_threshold
from components.import_backbone.component import import_backbone
from components.ingest_dataset.component import ingest_dataset
from components.report_outcome.component import report_outcome
from components.shared.artifact_types import Bundle, Evaluation
from components.shared.component import documented
from components.split_dataset.component import split_dataset
from components.train_baseline.component import train_baseline
from components.train_gate.component import train_gate
from pipelines import resources
from pipelines.parameters import PHASES, of_phase, pipeline_parameters

NAME = "streetvision-stage1"


class Outputs(NamedTuple):
    """What a run leaves."""

    bundle: Bundle
    evaluation: Evaluation
    report: dsl.HTML


def stage1(profile: resources.Profile) -> Any:
    """The pipeline for the resources of `profile`, as a KFP graph component.

    On a cluster an exit handler closes the run. KFP lets no output leave an exit handler's group and its local runner
    has none, so that a local run has outputs instead.
    """

    parameters = [*pipeline_parameters(), *resources.runtime_parameters(profile)]
    chosen = [parameter.name for parameter in resources.runtime_parameters(profile)]

    def phases(values: dict[str, Any]) -> Outputs:
        source = resources.light(fingerprint_source(**of_phase("fingerprint_source", values)), profile)
        resources.with_store(source)
        source.set_caching_options(enable_caching=False)  # it is what notices that the data changed
        ingest = ingest_dataset(source_fingerprint=source.outputs["data_digest"], **of_phase("ingest_dataset", values))
        resources.with_store(resources.light(ingest, profile, memory="16Gi"))
        dataset = ingest.outputs["dataset"]
        split = resources.light(split_dataset(dataset=dataset, **of_phase("split_dataset", values)), profile)
        backbone = import_backbone(
            backbone_fingerprint=source.outputs["backbone_digest"], **of_phase("import_backbone", values)
        )
        resources.with_store(resources.light(backbone, profile, memory="16Gi"))
        train = train_baseline(
            dataset=dataset,
            splits=split.outputs["splits"],
            backbone=backbone.outputs["pretrained"],
            **of_phase("train_baseline", values),
        )
        gpus = {name: values[name] for name in chosen}
        resources.training(train, profile, gpus)
        policies, gate = _policies(train, dataset, split.outputs["splits"], profile, values)
        resources.training(gate, profile, gpus)
        evaluation = evaluate(
            val_test_logits=train.outputs["val_test_logits"],
            gate_test_logits=gate.outputs["val_test_logits"],
            dataset=dataset,
            **policies,
            **of_phase("evaluate", values),
        )
        resources.light(evaluation, profile)
        bundle = export_bundle(
            checkpoint=train.outputs["checkpoint"],
            gate_checkpoint=gate.outputs["gate_checkpoint"],
            evaluation=evaluation.outputs["evaluation"],
            dataset=dataset,
            **policies,
            **of_phase("export_bundle", values),
        )
        resources.light(bundle, profile, memory="16Gi")
        return Outputs(bundle.outputs["bundle"], evaluation.outputs["evaluation"], evaluation.outputs["report"])

    def closed(values: dict[str, Any]) -> None:
        with dsl.ExitHandler(resources.light(report_outcome(), profile)):
            phases(values)

    function = (
        _with_signature(closed, parameters, None)
        if profile.on_cluster
        else _with_signature(phases, parameters, Outputs)
    )
    return dsl.pipeline(name=NAME)(documented(*PHASES.values(), resources.TrainingResources)(function))


def _policies(
    train: dsl.PipelineTask, dataset: Any, splits: Any, profile: resources.Profile, values: dict[str, Any]
) -> tuple[dict[str, Any], dsl.PipelineTask]:
    """All three policies fitted on VAL_CALIB, by the name of the input that takes them, and the task of the gate."""
    logits = train.outputs["val_calib_logits"]
    calibration = compare_calibrators(val_calib_logits=logits, **of_phase("compare_calibrators", values))
    resources.light(calibration, profile)
    softmax = fit_threshold(
        val_calib_logits=logits, calibration=calibration.outputs["calibration"], **of_phase("fit_threshold", values)
    )
    resources.light(softmax, profile)
    gate = train_gate(
        dataset=dataset, splits=splits, checkpoint=train.outputs["checkpoint"], **of_phase("train_gate", values)
    )
    calibrated_gate = calibrate_gate(
        val_calib_logits=gate.outputs["val_calib_logits"], **of_phase("calibrate_gate", values)
    )
    resources.light(calibrated_gate, profile)
    scrc = calibrate_scrc(val_calib_logits=logits, **of_phase("calibrate_scrc", values))
    resources.light(scrc, profile)
    return {
        "softmax_policy": softmax.outputs["policy"],
        "gate_policy": calibrated_gate.outputs["gate_policy"],
        "scrc_policy": scrc.outputs["scrc_policy"],
    }, gate


def _with_signature(wire: Any, parameters: list[inspect.Parameter], returned: Any) -> Any:
    """`wire` as the function KFP expects: one annotated parameter per pipeline parameter, called by position."""

    def pipeline(*channels: Any) -> Any:
        """Train, calibrate, evaluate and bundle a selective roadwork classifier."""
        names = [parameter.name for parameter in parameters]
        return wire(dict(zip(names, channels, strict=True)))

    pipeline.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    return pipeline
