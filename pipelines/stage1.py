"""The stage-1 pipeline: from a data source to a deployable bundle."""

import inspect
from typing import Any, NamedTuple

from kfp import dsl

from components.calibrate_gate.component import calibrate_gate
from components.calibrate_scrc.component import calibrate_scrc
from components.compare_adaptations.component import compare_adaptations
from components.compare_calibrators.component import compare_calibrators
from components.evaluate.component import evaluate
from components.export_bundle.component import export_bundle
from components.fingerprint_source.component import fingerprint_source
from components.fit_threshold.component import fit_threshold
from components.import_backbone.component import import_backbone
from components.ingest_dataset.component import ingest_dataset
from components.predict_logits.component import predict_logits
from components.pretrain_explora.component import pretrain_explora
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

    def phases(values: dict[str, Any]) -> Outputs:
        return _Wiring(profile, values).phases()

    def closed(values: dict[str, Any]) -> None:
        with dsl.ExitHandler(resources.light(report_outcome(), profile)):
            phases(values)

    parameters = [*pipeline_parameters(), *resources.runtime_parameters(profile)]
    function = (
        _with_signature(closed, parameters, None)
        if profile.on_cluster
        else _with_signature(phases, parameters, Outputs)
    )
    return dsl.pipeline(name=NAME)(documented(*PHASES.values(), resources.TrainingResources)(function))


class _Wiring:
    """One compilation: which output goes into which input. `values` are the pipeline's parameters."""

    def __init__(self, profile: resources.Profile, values: dict[str, Any]) -> None:
        self.profile, self.values = profile, values
        self.gpus = {parameter.name: values[parameter.name] for parameter in resources.runtime_parameters(profile)}

    def phases(self) -> Outputs:
        """All phases."""
        source = self._light(fingerprint_source(**self._of("fingerprint_source")))
        resources.with_store(source)
        source.set_caching_options(enable_caching=False)  # it is what notices that the data changed
        ingest = ingest_dataset(source_fingerprint=source.outputs["data_digest"], **self._of("ingest_dataset"))
        resources.with_store(self._light(ingest, memory="16Gi"))
        dataset = ingest.outputs["dataset"]
        split = self._light(split_dataset(dataset=dataset, **self._of("split_dataset")))
        splits = split.outputs["splits"]
        backbone = self._backbone(source.outputs["backbone_digest"], split)
        checkpoint = self._classifier(dataset, splits, backbone)
        logits = predict_logits(dataset=dataset, splits=splits, checkpoint=checkpoint, **self._of("predict_logits"))
        resources.torchrun(logits, self.profile, self.gpus)
        gate = train_gate(dataset=dataset, splits=splits, checkpoint=checkpoint, **self._of("train_gate"))
        resources.training(gate, self.profile, self.gpus)
        policies = self._policies(logits.outputs["val_calib_logits"], gate.outputs["val_calib_logits"])
        evaluation = evaluate(
            val_test_logits=logits.outputs["val_test_logits"],
            gate_test_logits=gate.outputs["val_test_logits"],
            dataset=dataset,
            **policies,
            **self._of("evaluate"),
        )
        self._light(evaluation)
        bundle = export_bundle(
            checkpoint=checkpoint,
            gate_checkpoint=gate.outputs["gate_checkpoint"],
            evaluation=evaluation.outputs["evaluation"],
            dataset=dataset,
            **policies,
            **self._of("export_bundle"),
        )
        self._light(bundle, memory="16Gi")
        return Outputs(bundle.outputs["bundle"], evaluation.outputs["evaluation"], evaluation.outputs["report"])

    def _backbone(self, fingerprint: Any, split: dsl.PipelineTask) -> Any:
        """What every classifier starts from: the pretrained backbone, or what it becomes on TRAIN without labels, or
        with them where the user has said so: only then are they an input."""
        with dsl.If(self.values["explora_objective"] == "none"):
            pretrained = self._imported(fingerprint)
        with dsl.Elif(self.values["use_labeled_data"] == True):  # noqa: E712 (a channel, compared when the run does)
            labelled = self._adapted(fingerprint, split, train_labels=split.outputs["train_labels"])
        with dsl.Else():
            adapted = self._adapted(fingerprint, split)
        return dsl.OneOf(pretrained, labelled, adapted)

    def _adapted(self, fingerprint: Any, split: dsl.PipelineTask, **labels: Any) -> Any:
        adapt = pretrain_explora(
            train_images=split.outputs["train_images"],
            pretrained=self._imported(fingerprint),
            **labels,
            **self._of("pretrain_explora"),
        )
        return resources.training(adapt, self.profile, self.gpus).outputs["adapted"]

    def _imported(self, fingerprint: Any) -> Any:
        imported = import_backbone(backbone_fingerprint=fingerprint, **self._of("import_backbone"))
        resources.with_store(self._light(imported, memory="16Gi"))
        return imported.outputs["pretrained"]

    def _classifier(self, dataset: Any, splits: Any, backbone: Any) -> Any:
        """The best of all `modes` on VAL_SELECT, trained side by side on a cluster, one after the other elsewhere."""
        with dsl.ParallelFor(self.values["modes"], parallelism=None if self.profile.on_cluster else 1) as mode:
            train = train_baseline(
                dataset=dataset, splits=splits, backbone=backbone, mode=mode, **self._of("train_baseline")
            )
            resources.training(train, self.profile, self.gpus)
        chosen = compare_adaptations(
            checkpoints=dsl.Collected(train.outputs["checkpoint"]),
            val_select_logits=dsl.Collected(train.outputs["val_select_logits"]),
            **self._of("compare_adaptations"),
        )
        return self._light(chosen).outputs["checkpoint"]

    def _policies(self, logits: Any, gate_logits: Any) -> dict[str, Any]:
        """All three policies fitted on VAL_CALIB, by the name of the input that takes them."""
        calibration = compare_calibrators(val_calib_logits=logits, **self._of("compare_calibrators"))
        softmax = fit_threshold(
            val_calib_logits=logits,
            calibration=self._light(calibration).outputs["calibration"],
            **self._of("fit_threshold"),
        )
        gate = calibrate_gate(val_calib_logits=gate_logits, **self._of("calibrate_gate"))
        scrc = calibrate_scrc(val_calib_logits=logits, **self._of("calibrate_scrc"))
        return {
            "softmax_policy": self._light(softmax).outputs["policy"],
            "gate_policy": self._light(gate).outputs["gate_policy"],
            "scrc_policy": self._light(scrc).outputs["scrc_policy"],
        }

    def _of(self, phase: str) -> dict[str, Any]:
        return of_phase(phase, self.values)

    def _light(self, task: dsl.PipelineTask, *, memory: str = "8Gi") -> dsl.PipelineTask:
        return resources.light(task, self.profile, memory=memory)


def _with_signature(wire: Any, parameters: list[inspect.Parameter], returned: Any) -> Any:
    """`wire` as the function KFP expects: one annotated parameter per pipeline parameter, called by position."""

    def pipeline(*channels: Any) -> Any:
        """Train, calibrate, evaluate and bundle a selective roadwork classifier."""
        names = [parameter.name for parameter in parameters]
        return wire(dict(zip(names, channels, strict=True)))

    pipeline.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    return pipeline
