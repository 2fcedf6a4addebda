"""The deployable directory: the model, exactly one policy, and the files that verify them."""

import shutil
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from components.export_bundle.attestation import Attestation
from components.export_bundle.config import ExportConfig
from components.export_bundle.model_card import FORM_METRICS, bundle_forms, model_card, natix_card
from components.export_bundle.sbom import write_sbom
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import (
    Manifest,
    read_manifest,
    sha256_file,
    verify_dir,
    write_json,
    writing,
)
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.contracts.formats import ONNX, ONNX_INT8, TRANSFORMERS
from components.shared.contracts.listing import say, shown
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data.dataset import Dataset
from components.shared.data.drift_reference import (
    open_reference,
    read_reference,
    write_reference,
)
from components.shared.data.splits import Splits, read_splits
from components.shared.data.val_test_images import ValTestImages
from components.shared.policies.early_exit import read_early_exit, write_early_exit
from components.shared.policies.evaluation_report import read_report
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import Policy, parse_policy
from components.shared.policies.policy_artifact import (
    read_distilled_policy,
    read_fit,
    read_policy,
)
from components.shared.serving.bundle import (
    DISTILLED_MODEL,
    DOCUMENT,
    GATE,
    MODEL,
    POLICY,
    PREPROCESSING,
    REFERENCE,
    Bundle,
    spec_of,
)
from components.shared.serving.formats.onnx_format import write_format
from components.shared.vision.classifier_spec import ClassifierSpec, read_spec
from components.shared.vision.view_spec import ViewSpec, tile_boxes

_LIBRARIES = ("numpy", "pillow", "safetensors", "torch", "transformers")


class _ComparedData(NamedTuple):
    """What further formats are compared on."""

    dataset: Dataset
    splits: Splits


@dataclass(frozen=True)
class _Inputs:
    """Verified inputs: the bundled policy with its checkpoint, and the documents about them."""

    checkpoint: Path
    policy_path: Path
    policy: Policy
    distilled_policy: Policy | None
    report: dict[str, Any]
    images: ValTestImages
    drift_reference: Path | None
    compared: _ComparedData | None
    manifests: dict[str, Manifest]


@dataclass(frozen=True)
class _Further:
    """What became of the forms beside model/.

    Attributes:
        n_near: Images so near a threshold that only their margins were compared with onnx/.
        metrics: Of onnx_int8/, as its format.json has them; empty without it.
        refusals: Formats that the bundle is without, and why.
        policies: Of forms that have their own.
    """

    n_near: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)


class _Model(NamedTuple):
    """What the model's files are described with.

    Attributes:
        preprocessing: The document of preprocessing.json.
        stock_reason: Why transformers' stock pipeline cannot load the model; empty if it can.
        reference_logits: Logits of the reference image, in the policy's order.
        bundle: The bundle so far.
    """

    preprocessing: dict[str, Any]
    stock_reason: str
    reference_logits: list[float]
    bundle: Bundle


def run(
    config: ExportConfig,
    *,
    checkpoint: InputDir,
    softmax_policy: InputDir,
    evaluation: InputDir,
    val_test_images: InputDir,
    bundle: OutputDir,
    gate_checkpoint: InputDir | None = None,
    gate_policy: InputDir | None = None,
    scrc_policy: InputDir | None = None,
    drift_reference: InputDir | None = None,
    dataset: InputDir | None = None,
    splits: InputDir | None = None,
) -> None:
    """Write the bundle of the policy named by `config.policy`, and compare it with the checkpoint.

    `dataset` and `splits` are for the comparison of further formats. onnx_int8 is another model:
    where its policy cannot be fitted or certified, the bundle is written without it, and
    `refused_formats` in bundle.json says why.

    Raises:
        InfeasibleError: the policy could not be fitted or certified on VAL_CALIB.
        ArtifactError: none or several policies, inputs of different runs, or formats without the
            data that they are compared on; before a model is loaded.
        ConfigError: the bundle must be signed, and no key is named that is trusted; or the graph of
            a model of several views is to resize.
        PermanentError: the exported model's logits differ from the checkpoint's, or a format's
            decisions from the model's.
    """
    policies = {"softmax": softmax_policy, "gate": gate_policy, "scrc": scrc_policy}
    if config.policy == "gate" and gate_checkpoint is not None:
        checkpoint = gate_checkpoint
    inputs = _read_inputs(
        config,
        checkpoint=checkpoint,
        policy_path=policies[config.policy],
        softmax_policy=softmax_policy,
        evaluation=evaluation,
        val_test_images=val_test_images,
        drift_reference=drift_reference,
        compared=_compared_data(config, dataset, splits),
    )

    _check_inputs(inputs)
    problem = config.views_problem(read_spec(inputs.checkpoint).views is not None)
    if problem:
        raise ConfigError(problem)

    attestation = Attestation.checked(config)

    with writing(
        bundle,
        kind=Kind.BUNDLE,
        step="export_bundle",
        config=config,
        inputs=inputs.manifests,
        attest=lambda out, manifest: attestation.write(out, manifest, inputs.manifests),
    ) as out:
        _write_bundle(config, inputs, out)

    named = config.named(inputs.policy.outcomes)
    say(
        f"bundle {named.model_name} {named.model_version}, content digest"
        f" {read_manifest(bundle).content_digest}"
    )


def _write_bundle(config: ExportConfig, inputs: _Inputs, out: Path) -> None:
    """Write everything but the manifest and what lies beside it."""
    named = config.named(inputs.policy.outcomes)
    shutil.copyfile(inputs.policy_path / POLICY, out / POLICY)
    write_early_exit(out, read_early_exit(inputs.policy_path))
    if inputs.drift_reference is not None:
        write_reference(out / REFERENCE, read_reference(inputs.drift_reference))

    model = _write_model(inputs, out)
    distilled = _write_distilled_model(inputs, out)
    further = _write_further(config, inputs, out, model)
    latencies = _latencies(config, inputs, model, further.policies)
    card = model_card(
        named,
        inputs.policy,
        inputs.report,
        inputs.images.dataset,
        model.preprocessing,
        affine=logit_affine_of(inputs.policy),
        stock_reason=model.stock_reason,
        distilled=distilled,
        forms=bundle_forms(out, inputs.report, further.metrics, latencies),
        n_near=further.n_near,
        refused_formats=further.refusals,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    write_json(out / "model_card.json", natix_card(named))
    write_sbom(out, named)

    document = _document(named, inputs, out, model) | {"refused_formats": further.refusals}
    if distilled and "student" in inputs.report:
        document |= _forms(inputs.report)
    write_json(out / DOCUMENT, document)


def _read_inputs(
    config: ExportConfig,
    *,
    checkpoint: Path,
    policy_path: Path | None,
    softmax_policy: Path,
    evaluation: Path,
    val_test_images: Path,
    drift_reference: Path | None,
    compared: _ComparedData | None,
) -> _Inputs:
    if policy_path is None:
        raise ArtifactError(
            f"policy={config.policy!r} is to be bundled, but {config.policy}_policy was not given"
        )

    policy, policy_manifest = read_policy(policy_path)
    if policy.kind != config.policy:
        raise ArtifactError(
            f"{policy_path}: holds a policy of kind {policy.kind!r}, expected {config.policy!r}"
        )
    if policy.kind == "gate" and not (checkpoint / "gate.json").is_file():
        raise ArtifactError(
            f"{checkpoint}: has no gate.json; a gate needs the checkpoint of train_gate"
        )

    images = ValTestImages.open(val_test_images)
    manifests = {
        "checkpoint": verify_dir(checkpoint, Kind.CHECKPOINT),
        "policy": policy_manifest,
        "evaluation": verify_dir(evaluation, Kind.EVALUATION),
        "val_test_images": images.manifest,
        "dataset": images.dataset,
    }
    if drift_reference is not None:
        _, manifests["drift_reference"] = open_reference(drift_reference)

    if compared is not None:
        if compared.dataset.manifest.content_digest != images.dataset.content_digest:
            raise ArtifactError(
                "dataset is another one than that of val_test_images; use the artifacts of one run"
            )
        manifests["splits"] = compared.splits.manifest

    return _Inputs(
        checkpoint=checkpoint,
        policy_path=policy_path,
        policy=policy,
        distilled_policy=read_distilled_policy(softmax_policy),
        report=read_report(evaluation),
        images=images,
        drift_reference=drift_reference,
        compared=compared,
        manifests=manifests,
    )


def _compared_data(
    config: ExportConfig, dataset: Path | None, splits: Path | None
) -> _ComparedData | None:
    """Return what further formats are compared on; None where there are none.

    Raises ArtifactError where it is not given.
    """
    further = [name for name in config.formats if name != TRANSFORMERS]
    if not further:
        return None
    if dataset is None or splits is None:
        raise ArtifactError(
            f"formats has {', '.join(further)}, compared on VAL_CALIB and VAL_SELECT: give dataset"
            f" and splits, or formats=[{TRANSFORMERS}]"
        )
    return _ComparedData(Dataset.open(dataset), read_splits(splits))


def _check_inputs(inputs: _Inputs) -> None:
    """Refuse inputs of different runs."""
    if parse_policy(inputs.report["policy"], "policy of the evaluation") != inputs.policy:
        raise ArtifactError(
            "evaluation was made with another policy; evaluate the one that is bundled"
        )

    class_names = read_spec(inputs.checkpoint).class_names
    if class_names != inputs.policy.class_names:
        raise ArtifactError(
            f"checkpoint has class_names {shown(list(class_names))}, the policy has"
            f" {shown(list(inputs.policy.class_names))}"
        )

    digest = inputs.manifests["dataset"].content_digest
    others = [
        name
        for name in ("checkpoint", "evaluation")
        if inputs.manifests[name].inputs.get("dataset", digest) != digest
    ]
    if others:
        raise ArtifactError(
            f"{' and '.join(others)} were made from another dataset; the model card would be wrong"
        )

    _check_reference(inputs.manifests)


def _check_reference(manifests: dict[str, Manifest]) -> None:
    """Refuse a drift reference that another model has computed.

    The checkpoint of a gate names the checkpoint below it, which computed the reference.
    """
    if "drift_reference" not in manifests:
        return
    checkpoint = manifests["checkpoint"]
    found = manifests["drift_reference"].inputs.get("checkpoint")
    if found not in (checkpoint.content_digest, checkpoint.inputs.get("checkpoint")):
        raise ArtifactError(
            "drift_reference was computed by another checkpoint; use the artifacts of one run"
        )


def _write_model(inputs: _Inputs, out: Path) -> _Model:
    """Write model/, gate/ and preprocessing.json, and check them."""
    import torch  # takes seconds, so only once the inputs are known to be good

    from components.export_bundle.check import check_decisions, check_logits, reference_logits
    from components.export_bundle.fuse_head import stock_incompatibility, write_model
    from components.shared.models.classifier import Classifier, normalise
    from components.shared.models.gate import gate_files

    images, policy = inputs.images, inputs.policy
    classifier = Classifier.load(inputs.checkpoint)
    spec = classifier.spec
    if spec.image_size != images.image_size:
        raise ArtifactError(
            f"checkpoint has image_size {spec.image_size}, the dataset has {images.image_size}"
        )

    # Logits of the checkpoint come first, because writing the model changes its head.
    pixels = images.probes
    with torch.inference_mode():
        logits = classifier(normalise(torch.from_numpy(pixels), spec)).numpy()

    preprocessing = _preprocessing(spec)
    stock_reason = stock_incompatibility(spec, logit_affine_of(policy))
    write_json(out / PREPROCESSING, preprocessing)
    write_model(classifier, policy, out / MODEL)

    if policy.kind == "gate":
        (out / GATE).mkdir()
        for file in gate_files(inputs.checkpoint):
            shutil.copyfile(file, out / GATE / file.name)

    bundle = Bundle(
        out,
        policy,
        spec_of(preprocessing, policy, PREPROCESSING),
        stock=not stock_reason,
        early_exit=read_early_exit(inputs.policy_path),
        name="the exported bundle",
    )
    check_logits(bundle, pixels, logits)
    if bundle.stock:
        check_decisions(bundle, pixels, logits)

    return _Model(preprocessing, stock_reason, reference_logits(bundle), bundle)


def _write_further(config: ExportConfig, inputs: _Inputs, out: Path, model: _Model) -> _Further:
    """Write onnx/ and onnx_int8/, where they are asked for and onnx_int8/ is not refused."""
    if inputs.compared is None:
        return _Further()

    from components.export_bundle.int8 import write_int8
    from components.export_bundle.onnx_export import write_onnx
    from components.export_bundle.parity import check_parity

    document = write_onnx(model.bundle, out / ONNX, resizes=config.onnx_resize)
    parity = check_parity(model.bundle, ONNX, *inputs.compared)
    found = {graph: result.to_json() for graph, result in parity.items()}
    write_format(out / ONNX, replace(document, parity=found))
    n_near = max(result.n_near for result in parity.values())
    if ONNX_INT8 not in config.formats:
        return _Further(n_near)

    int8 = write_int8(model.bundle, inputs.manifests["policy"].config, *inputs.compared)
    policies = {} if int8.policy is None else {ONNX_INT8: int8.policy}
    return _Further(n_near, int8.metrics, int8.refusals, policies)


def _latencies(
    config: ExportConfig, inputs: _Inputs, model: _Model, policies: dict[str, Policy]
) -> dict[str, float]:
    """Return milliseconds of an image by each form's folder, where a reference machine is named."""
    if config.reference_machine is None:
        return {}

    from components.shared.serving.forms import open_predictor
    from components.shared.serving.latency import median_latency_ms

    bundle = replace(model.bundle, form_policies=policies)
    return {
        MODEL if form == TRANSFORMERS else form: median_latency_ms(
            open_predictor(bundle, form), inputs.images.probes[:, None]
        )
        for form in [TRANSFORMERS, *bundle.forms]
    }


def _write_distilled_model(inputs: _Inputs, out: Path) -> bool:
    """Write student/, a stock model of the full image; False where there is none to write.

    The name of the folder is that of schema 1.
    """
    policy = inputs.distilled_policy
    if policy is None:
        return False

    from components.export_bundle.check import check_stock
    from components.export_bundle.fuse_head import (
        distilled_classifier,
        stock_incompatibility,
        write_model,
    )
    from components.shared.models.classifier import DISTILLED_HEAD, Classifier

    if not (inputs.checkpoint / DISTILLED_HEAD).is_file():
        return False

    distilled = distilled_classifier(Classifier.load(inputs.checkpoint))
    if stock_incompatibility(distilled.spec, logit_affine_of(policy)):
        return False

    write_model(distilled, policy, out / DISTILLED_MODEL)

    check_stock(out / DISTILLED_MODEL, distilled, inputs.images.probes, policy.outcomes)

    return True


def _preprocessing(spec: ClassifierSpec) -> dict[str, Any]:
    """Return preprocessing.json: the path from a photograph to the model's input."""
    document = {
        "decode": "upright by EXIF, RGB, full size",
        "resize": "Pillow BICUBIC to image_size x image_size, aspect ratio not kept, no crop",
        "normalise": "(value / 255 - image_mean) / image_std per channel, float32, channels first",
        "image_size": spec.image_size,
        "image_mean": list(spec.image_mean),
        "image_std": list(spec.image_std),
        "backbone_type": spec.backbone_type,
    }

    if spec.views is not None:
        views = spec.to_json()["views"]
        document["cut"] = (
            "after the resize: the whole image, then every tile (left, top, side) by rows, then all"
            " mirrored if flips; each by antialiased bicubic interpolation to views.size"
        )
        document["tiles"] = [list(box) for box in tile_boxes(spec.image_size, ViewSpec(**views))]
        document["views"] = views

    return document


def _forms(report: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of bundle.json about the metrics of both forms on VAL_TEST."""
    metrics_of = {MODEL: report["metrics"], DISTILLED_MODEL: report["student"]}
    return {
        "student": DISTILLED_MODEL,
        "forms": {
            form: {name: metrics[name]["value"] for name in FORM_METRICS}
            for form, metrics in metrics_of.items()
        },
    }


def _document(config: ExportConfig, inputs: _Inputs, out: Path, model: _Model) -> dict[str, Any]:
    """Return bundle.json: what the bundle holds, with a digest of every file, and where from."""
    uncalibrated_reason = logit_affine_of(inputs.policy).reason
    if "views" in model.preprocessing:
        uncalibrated_reason = (
            "the policy decides on the views' common margin; the weights are those of one view"
        )

    # How often the same guarantee was asked for on the same data; 0: not recorded, or none given.
    attempt = read_fit(inputs.policy_path).get("attempt", 0)
    files = sorted(path for path in out.rglob("*") if path.is_file())

    return {
        "name": config.model_name,
        "version": config.model_version,
        "model": MODEL,
        "policy": POLICY,
        "attempt": attempt,
        "preprocessing": PREPROCESSING,
        "stock_pipeline": not model.stock_reason,
        "stock_pipeline_reason": model.stock_reason,
        "stock_pipeline_decision": "" if model.stock_reason else _stock_decision(inputs.policy),
        "calibrated_weights": not uncalibrated_reason,
        "calibrated_weights_reason": uncalibrated_reason,
        "reference_logits": model.reference_logits,
        "files": {file.relative_to(out).as_posix(): sha256_file(file) for file in files},
        "lineage": {
            name: {
                "content_digest": manifest.content_digest,
                "config_digest": manifest.config_digest,
                "code_version": manifest.code_version,
                "inputs": manifest.inputs,
            }
            for name, manifest in inputs.manifests.items()
        },
        "versions": {name: version(name) for name in _libraries(config)},
    }


def _libraries(config: ExportConfig) -> list[str]:
    """Return the libraries that the bundle's forms compute with."""
    return [*_LIBRARIES, *(["onnxruntime"] if ONNX in config.formats else [])]


def _stock_decision(policy: Policy) -> str:
    """Return how a consumer of the stock model decides, and what its weights cannot hold."""
    outcomes = policy.outcomes
    if outcomes.positive_class is None:
        return (
            "the label with the largest score; the weights never defer, policy.json has the limit"
        )
    decision = f"{outcomes.names[1]!r} if its score exceeds 0.5, else {outcomes.names[0]!r}"
    return decision if policy.kind == "softmax" else f"{decision}; the weights never defer"


if __name__ == "__main__":
    main(run, ExportConfig)
