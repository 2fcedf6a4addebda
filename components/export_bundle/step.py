"""Phase 6: what is deployed? One directory with the model, exactly one policy, and everything to
check them by.
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.export_bundle.config import ExportConfig
from components.export_bundle.model_card import natix_card, readme
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import (
    Manifest,
    sha256_file,
    verify_dir,
    write_json,
    writing,
)
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data.dataset import Dataset
from components.shared.policies.early_exit import read_early_exit, write_early_exit
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import Policy
from components.shared.policies.policy_artifact import read_distilled_policy, read_policy
from components.shared.serving.bundle import (
    DISTILLED_MODEL,
    DOCUMENT,
    GATE,
    MODEL,
    POLICY,
    PREPROCESSING,
    Bundle,
)
from components.shared.vision.view_spec import ViewSpec, tile_boxes

if TYPE_CHECKING:
    from components.shared.models.classifier import ClassifierSpec

_FORM_METRICS = ("accuracy", "mcc", "auroc")
_N_CHECKED_IMAGES = 16  # a second with a small backbone, half a minute with the largest
_LIBRARIES = ("numpy", "pillow", "safetensors", "torch", "transformers")


def run(
    config: ExportConfig,
    *,
    checkpoint: InputDir,
    softmax_policy: InputDir,
    evaluation: InputDir,
    dataset: InputDir,
    bundle: OutputDir,
    gate_checkpoint: InputDir | None = None,
    gate_policy: InputDir | None = None,
    scrc_policy: InputDir | None = None,
) -> None:
    """Fold the policy named by `config.policy` into its model, write the bundle, and compare it
    with the checkpoint.

    Raises ArtifactError for none or several policies and for inputs of different runs, all before a
    model is loaded.
    """
    path = {"softmax": softmax_policy, "gate": gate_policy, "scrc": scrc_policy}[config.policy]
    if config.policy == "gate":
        checkpoint = gate_checkpoint or checkpoint
    if path is None:
        raise ArtifactError(
            f"policy={config.policy!r} is to be bundled, but {config.policy}_policy was not given"
        )
    rule, policy_manifest = read_policy(path)
    if rule.kind != config.policy:
        raise ArtifactError(
            f"{path}: holds a policy of kind {rule.kind!r}, expected {config.policy!r}"
        )
    if rule.kind == "gate" and not (checkpoint / "gate.json").is_file():
        raise ArtifactError(
            f"{checkpoint}: has no gate.json; a gate needs the checkpoint of train_gate"
        )
    data = Dataset.open(dataset)
    inputs = {
        "checkpoint": verify_dir(checkpoint, Kind.CHECKPOINT),
        "policy": policy_manifest,
        "evaluation": verify_dir(evaluation, Kind.EVALUATION),
        "dataset": data.manifest,
    }
    report = json.loads((evaluation / "eval_report.json").read_text(encoding="utf-8"))
    _check(inputs, rule, report, checkpoint)
    with writing(
        bundle, kind=Kind.BUNDLE, step="export_bundle", config=config, inputs=inputs
    ) as out:
        shutil.copyfile(path / "policy.json", out / POLICY)
        write_early_exit(out, read_early_exit(path))
        preprocessing, reason = _write_model(checkpoint, rule, data, out)
        student = _write_student(checkpoint, read_distilled_policy(softmax_policy), data, out)
        card = readme(config, report, data.manifest.summary, preprocessing, reason, student=student)
        (out / "README.md").write_text(card, encoding="utf-8")
        write_json(out / "model_card.json", natix_card(config))
        scores = report.get("student") if student else None
        write_json(
            out / DOCUMENT,
            _document(config, rule, out, inputs, reason) | _student_entry(scores, report),
        )


def _check(
    inputs: dict[str, Manifest], rule: Policy, report: dict[str, Any], checkpoint: Path
) -> None:
    """Refuse parts that do not belong together."""
    if report["policy"] != rule.to_json():
        raise ArtifactError(
            "evaluation was made with another policy; evaluate the one that is bundled"
        )
    names = tuple(
        json.loads((checkpoint / "classifier.json").read_text(encoding="utf-8"))["class_names"]
    )
    if names != rule.class_names:
        raise ArtifactError(
            f"checkpoint has class_names {list(names)}, the policy has {list(rule.class_names)}"
        )
    digest = inputs["dataset"].content_digest
    others = [
        name
        for name in ("checkpoint", "evaluation")
        if inputs[name].inputs.get("dataset", digest) != digest
    ]
    if others:
        raise ArtifactError(
            f"{' and '.join(others)} were made from another dataset; the model card would be wrong"
        )


def _write_model(
    checkpoint: Path, rule: Policy, data: Dataset, out: Path
) -> tuple[dict[str, Any], str]:
    """Write model/ and preprocessing.json and check them; returns the latter, and why the stock
    pipeline cannot.
    """
    import torch  # seconds, so only once the inputs are known to be good

    from components.export_bundle.check import check_logits
    from components.export_bundle.fuse_head import obstacle, write_model
    from components.shared.models.classifier import Classifier, normalise
    from components.shared.models.gate import gate_files

    classifier = Classifier.load(checkpoint)
    spec = classifier.spec
    fold = logit_affine_of(rule)
    reason = obstacle(spec, fold)
    if spec.image_size != data.image_size:
        raise ArtifactError(
            f"checkpoint has image_size {spec.image_size}, the dataset has {data.image_size}"
        )
    positions = np.linspace(0, len(data.samples) - 1, min(_N_CHECKED_IMAGES, len(data.samples)))
    pixels = data.images(positions.round().astype(np.int64))
    with torch.inference_mode():
        logits = classifier(normalise(torch.from_numpy(pixels), spec)).numpy()
    preprocessing = {
        "decode": "upright by EXIF, RGB, full size",
        "resize": "Pillow BICUBIC to image_size x image_size, aspect ratio not kept, no crop",
        "normalise": "(value / 255 - image_mean) / image_std per channel, float32, channels first",
        "image_size": spec.image_size,
        "image_mean": list(spec.image_mean),
        "image_std": list(spec.image_std),
        "backbone_type": spec.backbone_type,
    }
    if spec.views is not None:
        preprocessing |= _described(spec)
    write_json(out / PREPROCESSING, preprocessing)
    write_model(classifier, rule, out / MODEL)
    if rule.kind == "gate":
        (out / GATE).mkdir()
        for file in gate_files(checkpoint):
            shutil.copyfile(file, out / GATE / file.name)
    check_logits(Bundle(out, rule, preprocessing, stock=not reason), pixels, logits)
    return preprocessing, reason


def _write_student(checkpoint: Path, rule: Policy | None, data: Dataset, out: Path) -> bool:
    """Write student/, a stock model for one image, where the checkpoint has a student that the
    stock form can carry.
    """
    if rule is None or not (checkpoint / "student.safetensors").is_file():
        return False
    from components.export_bundle.check import check_stock
    from components.export_bundle.fuse_head import distilled_classifier, obstacle, write_model
    from components.shared.models.classifier import Classifier

    student = distilled_classifier(Classifier.load(checkpoint))
    if obstacle(student.spec, logit_affine_of(rule)):
        return False
    write_model(student, rule, out / DISTILLED_MODEL)
    images = data.images(np.arange(min(_N_CHECKED_IMAGES, len(data.samples)), dtype=np.int64))
    check_stock(out / DISTILLED_MODEL, student, images, rule.positive)
    return True


def _student_entry(scores: dict[str, Any] | None, report: dict[str, Any]) -> dict[str, Any]:
    """Which form scored what on VAL_TEST, for bundle.json."""
    if scores is None:
        return {}
    forms = {MODEL: report["metrics"], DISTILLED_MODEL: scores}
    return {
        "student": DISTILLED_MODEL,
        "forms": {
            form: {name: values[name]["value"] for name in _FORM_METRICS}
            for form, values in forms.items()
        },
    }


def _described(spec: "ClassifierSpec") -> dict[str, Any]:
    """What preprocessing.json says of views."""
    views = spec.to_json()["views"]
    return {
        "cut": (
            "after the resize: the whole image, then every tile (left, top, side) by rows, then all"
            " mirrored if flips; each by antialiased bicubic interpolation to views.size"
        ),
        "tiles": [list(box) for box in tile_boxes(spec.image_size, ViewSpec(**views))],
        "views": views,
    }


def _document(
    config: ExportConfig, rule: Policy, out: Path, inputs: dict[str, Manifest], reason: str
) -> dict[str, Any]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    several = "views" in json.loads((out / PREPROCESSING).read_text(encoding="utf-8"))
    unfolded = (
        "the policy decides on the views' common margin; the weights are those of one view"
        if several
        else ""
    )
    unfolded = unfolded or logit_affine_of(rule).reason
    return {
        "name": config.model_name,
        "version": config.model_version,
        "model": MODEL,
        "policy": POLICY,
        "preprocessing": PREPROCESSING,
        "stock_pipeline": not reason,
        "stock_pipeline_reason": reason,
        "calibrated_weights": not unfolded,
        "calibrated_weights_reason": unfolded,
        "files": {file.relative_to(out).as_posix(): sha256_file(file) for file in files},
        "lineage": {
            name: {
                "content_digest": manifest.content_digest,
                "config_digest": manifest.config_digest,
                "code_version": manifest.code_version,
                "inputs": manifest.inputs,
            }
            for name, manifest in inputs.items()
        },
        "versions": {name: version(name) for name in _LIBRARIES},
    }


if __name__ == "__main__":
    main(run, ExportConfig)
