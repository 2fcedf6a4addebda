"""The stage-1 pipeline: from a data source to a deployable bundle.

The graph has no conditions, loops or exit handler: on a real back end a branch whose tasks are all
cached never counts as finished. What is optional is a `Variant`, chosen when the pipeline is
compiled. Two groups (nested pipelines) keep the root on one screen; each further group would cost a
driver pod.
"""

import dataclasses
import inspect
from typing import Any, NamedTuple

from kfp import dsl

from components.artifact_types import (
    Backbone,
    Bundle,
    Checkpoint,
    Evaluation,
    ImageDataset,
    Splits,
    ValCalibLogits,
    ValCalibReference,
    ValTestImages,
    ValTestLogits,
)
from components.audit_labels.component import audit_labels
from components.calibrate_gate.component import calibrate_gate
from components.calibrate_scrc.component import calibrate_scrc
from components.compare_adaptations.component import compare_adaptations
from components.compare_calibrators.component import compare_calibrators
from components.configure.component import configure
from components.evaluate.component import evaluate
from components.export_bundle.component import export_bundle
from components.extract_features.component import extract_features
from components.fit_threshold.component import fit_threshold
from components.import_backbone.component import import_backbone
from components.ingest_dataset.component import ingest_dataset, ingest_part, merge_parts
from components.predict_logits.component import predict_logits
from components.pretrain_explora.component import pretrain_explora
from components.shared.contracts.adaptations import FROZEN
from components.split_dataset.component import split_dataset, split_dataset_alone
from components.train_baseline.component import train_baseline
from components.train_gate.component import train_gate
from pipelines import resources, train_job
from pipelines.kfp_private import PythonComponent
from pipelines.names import PIPELINE
from pipelines.parameters import FORMS, Variant
from pipelines.resources import Profile
from pipelines.sources import phase_image

DESCRIPTION = "Train, calibrate, evaluate and bundle a selective roadwork classifier."


class Outputs(NamedTuple):
    """What a run leaves."""

    bundle: Bundle
    evaluation: Evaluation
    report: dsl.HTML


class Trained(NamedTuple):
    """What the group `train` hands on."""

    checkpoint: Checkpoint
    val_calib_logits: ValCalibLogits
    val_test_logits: ValTestLogits
    val_test_images: ValTestImages
    drift_reference: ValCalibReference
    gate_checkpoint: Checkpoint
    gate_calib_logits: ValCalibLogits
    gate_test_logits: ValTestLogits


class Wired(NamedTuple):
    """Outputs of the tasks of stage 1, for those that follow it.

    config: of `configure`, one for each phase. trained, delivered: of the two groups.
    """

    config: Any
    dataset: Any
    splits: Any
    trained: Any
    delivered: Any


class Stage1:
    """The tasks of stage 1, for each pipeline that has them.

    The groups are pipelines themselves, and have to exist before the one that contains them.
    """

    def __init__(self, profile: Profile, variant: Variant) -> None:
        self.profile, self.variant = profile, variant
        self._train = _train(profile, variant)
        self._deliver = _evaluate_and_deliver(profile, variant)

    def wire(self, form: dict[str, Any]) -> Wired:
        """Add the tasks to the pipeline that is being made.

        Args:
            form: the run's parameters, as channels of the pipeline.
        """
        data = prepare_data(form, self.profile, self.variant)
        config = data.config

        trained = self._train(
            dataset=data.dataset,
            splits=data.splits,
            backbone=data.backbone,
            features_config=config["extract_features"],
            train_config=config["train_baseline"],
            compare_config=config["compare_adaptations"],
            predict_config=config["predict_logits"],
            gate_config=config["train_gate"],
            **({"audit_config": config["audit_labels"]} if self.variant.audit_labels else {}),
        )

        compared = {"dataset": data.dataset, "splits": data.splits}
        delivered = self._deliver(
            **trained.outputs,
            **(compared if self.variant.is_compared else {}),
            calibrators_config=config["compare_calibrators"],
            threshold_config=config["fit_threshold"],
            gate_config=config["calibrate_gate"],
            scrc_config=config["calibrate_scrc"],
            evaluate_config=config["evaluate"],
            export_config=config["export_bundle"],
        )

        return Wired(
            config,
            data.dataset,
            data.splits,
            trained.outputs,
            delivered.outputs,
        )


def stage1(profile: Profile, variant: Variant = Variant()) -> Any:  # noqa: B008 - frozen
    """Return the pipeline of `variant` for the resources of `profile`, as a KFP graph component."""
    tasks = Stage1(profile, variant)

    def wire(form: dict[str, Any]) -> Outputs:
        delivered = tasks.wire(form).delivered
        return Outputs(delivered["bundle"], delivered["evaluation"], delivered["report"])

    return dsl.pipeline(name=PIPELINE, description=DESCRIPTION)(
        with_form(wire, variant, Outputs, DESCRIPTION)
    )


class PreparedData(NamedTuple):
    """Outputs of the tasks before any training; config: of `configure`, one for each phase."""

    config: Any
    dataset: Any
    splits: Any
    backbone: Any


def prepare_data(form: dict[str, Any], profile: Profile, variant: Variant) -> PreparedData:
    """Add the tasks that validate, ingest, split and import to the pipeline that is being made.

    Args:
        form: the run's parameters, as channels of the pipeline.
        profile: the resources.
        variant: the optional parts of the graph.
    """
    run = configure(**{"mode": "", **form, **variant.compiled_in})
    run.set_caching_options(enable_caching=False)  # the step that notices that the data changed
    resources.with_store(set_step(resources.light, run, profile), profile, "data")
    config = run.outputs

    ingest = _ingest(profile, variant, config["ingest_dataset"])
    split = _splitting(variant)(dataset=ingest.outputs["dataset"], config=config["split_dataset"])
    set_step(resources.light, split, profile, split_dataset)
    resources.with_store(split, profile, "runs")

    return PreparedData(
        config,
        ingest.outputs["dataset"],
        split.outputs["splits"],
        _backbone(profile, variant, config, split),
    )


def _splitting(variant: Variant) -> PythonComponent:
    """The component that splits; it copies TRAIN's pixels where extended pre-training reads them.

    In both graphs the task has one name.
    """
    if variant.pretrain != "none":
        return split_dataset
    return _named(split_dataset_alone, split_dataset.name)


def _ingest(profile: Profile, variant: Variant, config: Any) -> dsl.PipelineTask:
    """Return the task with the data set, which merges the parts of others where there are some."""
    if variant.ingest_parts == 1:
        return set_step(resources.ingest, ingest_dataset(config=config), profile)

    parts = {}
    for number in range(1, variant.ingest_parts + 1):
        check = _named(ingest_part, f"ingest-part-{number}")(
            config=config, number=number, n_parts=variant.ingest_parts
        )
        set_step(resources.ingest, check, profile, ingest_dataset)
        parts[f"part_{number}"] = check.outputs["part"]

    task = _named(merge_parts, ingest_dataset.name)(config=config, **parts)
    return set_step(resources.ingest, task, profile)


def _backbone(profile: Profile, variant: Variant, config: Any, split: dsl.PipelineTask) -> Any:
    """The pretrained backbone, or what extended pre-training on TRAIN makes of it.

    Labels only where compiled in.
    """
    imported = import_backbone(config=config["import_backbone"])
    resources.with_store(set_step(resources.heavy, imported, profile), profile, "data")
    resources.with_hub_token(imported, profile)
    if variant.pretrain == "none":
        return imported.outputs["pretrained"]

    labels = (
        {"train_labels": split.outputs["train_labels"]} if variant.pretrain == "labelled" else {}
    )
    adapt = pretrain_explora(
        train_images=split.outputs["train_images"],
        pretrained=imported.outputs["pretrained"],
        config=config["pretrain_explora"],
        **labels,
    )

    return set_step(train_job.training, adapt, profile).outputs["adapted"]


def _train(profile: Profile, variant: Variant) -> Any:
    """The group that trains the classifier and the gate, and predicts VAL_CALIB and VAL_TEST.

    Features are extracted where a training may read them: where its mode is a run's parameter, or a
    compiled one is frozen; and where labels are audited.
    """

    def train(
        dataset: dsl.Input[ImageDataset],
        splits: dsl.Input[Splits],
        backbone: dsl.Input[Backbone],
        features_config: dict,
        train_config: dict,
        compare_config: dict,
        predict_config: dict,
        gate_config: dict,
        audit_config: dict = {},  # noqa: B006 - KFP's default value
    ) -> Trained:
        inputs = {"dataset": dataset, "splits": splits}
        features: dict[str, Any] = {}
        is_read = not variant.modes or FROZEN in variant.modes
        if is_read or variant.audit_labels:
            extracted = extract_features(**inputs, backbone=backbone, config=features_config)
            outputs = dict(set_step(resources.training, extracted, profile).outputs)
            features = outputs if is_read else {}
        if variant.audit_labels:
            audit = audit_labels(dataset=dataset, **outputs, config=audit_config)
            set_step(resources.heavy, audit, profile)

        tasks = [
            _named(train_baseline, f"train-{mode}")(
                **inputs,
                **(features if mode == FROZEN else {}),
                backbone=backbone,
                config=train_config,
                mode=mode,
            )
            for mode in variant.modes
        ] or [train_baseline(**inputs, **features, backbone=backbone, config=train_config)]
        for task in tasks:
            set_step(train_job.training, task, profile, train_baseline)
        checkpoint = (
            _best(tasks, compare_config, profile)
            if len(tasks) > 1
            else tasks[0].outputs["checkpoint"]
        )

        logits = predict_logits(**inputs, checkpoint=checkpoint, config=predict_config)
        set_step(resources.torchrun, logits, profile)
        gate = train_gate(**inputs, **features, checkpoint=checkpoint, config=gate_config)
        set_step(resources.training, gate, profile)

        return Trained(
            checkpoint,
            logits.outputs["val_calib_logits"],
            logits.outputs["val_test_logits"],
            logits.outputs["val_test_images"],
            logits.outputs["drift_reference"],
            gate.outputs["gate_checkpoint"],
            gate.outputs["val_calib_logits"],
            gate.outputs["val_test_logits"],
        )

    if not variant.audit_labels:
        _drop_parameter(train, "audit_config")
    return dsl.pipeline(
        name="train",
        description="Train the classifier and the gate; predict VAL_CALIB and VAL_TEST.",
    )(train)


def _drop_parameter(function: Any, name: str) -> None:
    """Hide an optional parameter from KFP, whose graph would declare it."""
    signature = inspect.signature(function)
    kept = [parameter for parameter in signature.parameters.values() if parameter.name != name]
    function.__signature__ = signature.replace(parameters=kept)


def _best(tasks: list[dsl.PipelineTask], config: Any, profile: Profile) -> Any:
    """The best checkpoint of several trainings on VAL_SELECT."""
    candidates = {}
    for number, task in enumerate(tasks, start=1):
        candidates[f"checkpoint_{number}"] = task.outputs["checkpoint"]
        candidates[f"val_select_logits_{number}"] = task.outputs["val_select_logits"]
    compared = compare_adaptations(**candidates, config=config)
    return set_step(resources.light, compared, profile).outputs["checkpoint"]


def _evaluate_and_deliver(profile: Profile, variant: Variant) -> Any:
    """Return the group that fits the policies, evaluates them and writes the bundle.

    Policies are fitted on VAL_CALIB and evaluated on VAL_TEST. The bundle's further formats are
    compared with its first one on the data set.
    """

    def evaluate_and_deliver(
        checkpoint: dsl.Input[Checkpoint],
        val_calib_logits: dsl.Input[ValCalibLogits],
        val_test_logits: dsl.Input[ValTestLogits],
        val_test_images: dsl.Input[ValTestImages],
        drift_reference: dsl.Input[ValCalibReference],
        gate_checkpoint: dsl.Input[Checkpoint],
        gate_calib_logits: dsl.Input[ValCalibLogits],
        gate_test_logits: dsl.Input[ValTestLogits],
        calibrators_config: dict,
        threshold_config: dict,
        gate_config: dict,
        scrc_config: dict,
        evaluate_config: dict,
        export_config: dict,
        dataset: dsl.Input[ImageDataset] = None,
        splits: dsl.Input[Splits] = None,
    ) -> Outputs:
        calibration = compare_calibrators(
            val_calib_logits=val_calib_logits, config=calibrators_config
        )
        softmax = fit_threshold(
            val_calib_logits=val_calib_logits,
            calibration=calibration.outputs["calibration"],
            config=threshold_config,
        )

        gate = calibrate_gate(val_calib_logits=gate_calib_logits, config=gate_config)
        scrc = calibrate_scrc(val_calib_logits=val_calib_logits, config=scrc_config)
        policies = {
            "softmax_policy": softmax.outputs["policy"],
            "gate_policy": gate.outputs["gate_policy"],
            "scrc_policy": scrc.outputs["scrc_policy"],
        }

        evaluation = evaluate(
            val_test_logits=val_test_logits,
            gate_test_logits=gate_test_logits,
            val_test_images=val_test_images,
            **policies,
            config=evaluate_config,
        )

        bundle = export_bundle(
            checkpoint=checkpoint,
            gate_checkpoint=gate_checkpoint,
            evaluation=evaluation.outputs["evaluation"],
            val_test_images=val_test_images,
            drift_reference=drift_reference,
            **policies,
            **({"dataset": dataset, "splits": splits} if is_compared else {}),
            config=export_config,
        )
        for task in (calibration, softmax, gate, scrc, evaluation):
            set_step(resources.light, task, profile)
        resources.with_store(evaluation, profile, "data")  # for the table of stage 2
        resources.with_signing(set_step(resources.heavy, bundle, profile), profile)

        return Outputs(
            bundle.outputs["bundle"], evaluation.outputs["evaluation"], evaluation.outputs["report"]
        )

    is_compared = variant.is_compared
    for name in () if is_compared else ("dataset", "splits"):
        _drop_parameter(evaluate_and_deliver, name)
    return dsl.pipeline(
        name="evaluate-and-deliver",
        description="Fit the policies on VAL_CALIB, evaluate them on VAL_TEST, write the bundle.",
    )(evaluate_and_deliver)


def set_step(
    kind: Any, task: dsl.PipelineTask, profile: Profile, component: Any = None
) -> dsl.PipelineTask:
    """Give a task the resources of its kind and the image of exactly its phase's sources."""
    phase = (component.name if component else task.name).replace("-", "_")
    task.set_container_image(phase_image(phase, profile.registry))
    return kind(task, profile)


def _named(component: PythonComponent, name: str) -> PythonComponent:
    """Return `component` under another name, which graph, logs and `status` then show."""
    spec = dataclasses.replace(component.component_spec, name=name)
    return PythonComponent(component_spec=spec, python_func=component.python_func)


def with_form(wire: Any, variant: Variant, outputs: Any, description: str) -> Any:
    """Return `wire` with the signature that KFP expects: one documented parameter per field."""
    fields = FORMS[variant.pipeline].__dataclass_fields__
    mappings = [name for name in variant.form if fields[name].default is dataclasses.MISSING]
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default={} if name in mappings else fields[name].default,
            annotation=dict if name in mappings else str,
        )
        for name in variant.form
    ]

    def pipeline(*channels: Any) -> Any:
        return wire(dict(zip(variant.form, channels, strict=True)))

    helps = [f"    {name}: {fields[name].metadata['help']}" for name in variant.form]
    pipeline.__doc__ = "\n".join([description, "", "Args:", *helps])
    pipeline.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters, return_annotation=outputs
    )

    return pipeline
