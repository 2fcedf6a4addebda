"""Write one artifact of every kind, in the current schema, for readers to come: python -m
tests.golden.make

Run it when SCHEMA_VERSION changes, never to make a failing test pass: what is stored here is what
users have on disk.
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from components.audit_labels.config import AuditLabelsConfig
from components.audit_labels.step import run as audit_labels
from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_gate.step import run as calibrate_gate
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.step import run as calibrate_scrc
from components.compare_adaptations.config import CompareAdaptationsConfig
from components.compare_adaptations.step import run as compare_adaptations
from components.compare_calibrators.config import CompareCalibratorsConfig
from components.compare_calibrators.step import run as compare_calibrators
from components.detect_drift.config import DetectDriftConfig
from components.detect_drift.step import run as detect_drift
from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.extract_features.config import ExtractFeaturesConfig
from components.extract_features.step import run as extract_features
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.ingest_dataset.config import IngestConfig, PartConfig
from components.ingest_dataset.part import run_part
from components.ingest_dataset.step import run as ingest_dataset
from components.predict_logits.config import PredictLogitsConfig
from components.predict_logits.step import run as predict_logits
from components.promote_bundle.config import PromoteConfig
from components.promote_bundle.step import run as promote_bundle
from components.score_images.config import ScoreImagesConfig
from components.score_images.step import run as score_images
from components.shared.contracts.artifacts import SCHEMA_VERSION
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.loop.state import TrainingState
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from components.train_gate.config import TrainGateConfig
from components.train_gate.step import run as train_gate
from components.tune_head.config import TuneHeadConfig
from components.tune_head.step import run as tune_head
from pipelines.local.store import local_store
from tests.components.conftest import write_backbone_artifact, write_source
from tests.drift import write_bundle, write_new_images
from tests.promotion import make_run

FOLDER = Path(__file__).parent / f"schema{SCHEMA_VERSION}"
# Directory name -> kind in its manifest.
KINDS = {
    "dataset": "ImageDataset",
    "image_part": "ImagePart",
    "splits": "Splits",
    "backbone": "Backbone",
    "train_images": "TrainImages",
    "train_labels": "TrainLabels",
    "train_features": "TrainFeatures",
    "val_select_features": "ValSelectFeatures",
    "label_audit": "LabelAudit",
    "checkpoint": "Checkpoint",
    "val_select_logits": "ValSelectLogits",
    "chosen_checkpoint": "Checkpoint",
    "comparison": "Comparison",
    "tuning": "Tuning",
    "gate_checkpoint": "Checkpoint",
    "val_calib_logits": "ValCalibLogits",
    "val_test_logits": "ValTestLogits",
    "val_test_images": "ValTestImages",
    "drift_reference": "ValCalibReference",
    "gate_calib_logits": "ValCalibLogits",
    "gate_test_logits": "ValTestLogits",
    "calibration": "Calibration",
    "softmax_policy": "Policy",
    "gate_policy": "Policy",
    "scrc_policy": "Policy",
    "evaluation": "Evaluation",
    "bundle": "Bundle",
    "onnx_bundle": "Bundle",
    "scores": "Scores",
    "step-000000003": "TrainingState",
    "drift": "Drift",
    "promotion": "Promotion",
}
POLICIES = ("softmax_policy", "gate_policy", "scrc_policy")
EVALUATED = ("val_test_logits", "gate_test_logits", *POLICIES, "val_test_images")
BUNDLED = (
    *("checkpoint", "gate_checkpoint", *POLICIES, "evaluation"),
    *("val_test_images", "drift_reference"),
)


def main() -> None:
    """A run of all steps on a few small images."""
    if FOLDER.exists():
        sys.exit(
            f"{FOLDER} exists; golden artifacts are never rewritten (delete it yourself to do so)"
        )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with contextlib.chdir(root):  # configurations are stored too: relative paths in them
            _run(Path())
        FOLDER.mkdir()
        for folder in KINDS:
            shutil.copytree(root / folder, FOLDER / folder)


def _run(root: Path) -> None:
    write_source(root / "source", 240)
    write_backbone_artifact(root / "backbone")
    ingest_dataset(IngestConfig(data=str(root / "source"), image_size=16), dataset=root / "dataset")
    part = PartConfig(data=str(root / "source"), image_size=16, part=3, n_parts=8)
    run_part(part, part=root / "image_part")
    split_dataset(
        SplitConfig(min_per_class=2),
        **_paths(root, "dataset", "splits", "train_images", "train_labels"),
    )
    data = _paths(root, "dataset", "splits")
    extract_features(
        ExtractFeaturesConfig(n_cached_augmentations=2, n_processes=1),
        **data,
        **_paths(root, "backbone", "train_features", "val_select_features"),
    )
    audit_labels(
        AuditLabelsConfig(),
        dataset=root / "dataset",
        **_paths(root, "train_features", "val_select_features"),
        audit=root / "label_audit",
        report=root / "label_audit.html",
    )
    tune_head(
        TuneHeadConfig(n_trials=3, n_bootstrap=100, training={"epochs": 2}),
        **_paths(root, "train_features", "val_select_features", "tuning"),
    )
    config = TrainBaselineConfig(mode="lora", epochs=2, n_processes=1)
    train_baseline(config, **data, **_paths(root, "backbone", "checkpoint", "val_select_logits"))
    compare_adaptations(
        CompareAdaptationsConfig(modes=("lora",), n_bootstrap=100),
        checkpoints=(root / "checkpoint",),
        val_select_logits=(root / "val_select_logits",),
        checkpoint=root / "chosen_checkpoint",
        comparison=root / "comparison",
        table=root / "table.md",
    )
    logits = _paths(
        root, "val_calib_logits", "val_test_logits", "val_test_images", "drift_reference"
    )
    predict_logits(
        PredictLogitsConfig(n_processes=1), **data, **_paths(root, "checkpoint"), **logits
    )
    train_gate(
        TrainGateConfig(epochs=2, n_processes=1),
        **data,
        **_paths(root, "checkpoint", "gate_checkpoint"),
        val_calib_logits=root / "gate_calib_logits",
        val_test_logits=root / "gate_test_logits",
    )
    calib = _paths(root, "val_calib_logits")
    compare_calibrators(
        CompareCalibratorsConfig(n_bootstrap=100), **calib, **_paths(root, "calibration")
    )
    fit_threshold(FitThresholdConfig(n_bootstrap=100), **calib, policy=root / "softmax_policy")
    calibrate_scrc(CalibrateScrcConfig(alpha=0.75), **calib, **_paths(root, "scrc_policy"))
    calibrate_gate(
        CalibrateGateConfig(alpha=0.9),
        val_calib_logits=root / "gate_calib_logits",
        **_paths(root, "gate_policy"),
    )
    evaluate(EvaluateConfig(n_bootstrap=100), **_paths(root, *EVALUATED, "evaluation", "report"))
    bundled = ExportConfig(formats=("transformers",))
    export_bundle(bundled, **_paths(root, *BUNDLED, "bundle"))
    make_onnx_bundle(root)
    scored = ScoreImagesConfig(images=str(root / "source"))
    score_images(scored, **_paths(root, "bundle", "scores"))
    state = TrainingState({"weights/w": torch.arange(3.0)}, {"step": 3, "best_epoch": 1})
    checkpoint_files.write(root, state, step="train_baseline", config=config)
    make_drift(root)
    make_promotion(root)


def make_onnx_bundle(root: Path) -> None:
    """The bundle once more, with the form onnx, whose comparison reads the data set."""
    config = ExportConfig(formats=("transformers", "onnx"))
    inputs = _paths(root, *BUNDLED, "dataset", "splits")
    export_bundle(config, **inputs, bundle=root / "onnx_bundle")


def make_drift(root: Path) -> None:
    """New images of noise, darker than the reference of a bundle of a random model."""
    config = DetectDriftConfig(
        images=str(write_new_images(root / "new", darker=0.4, count=20)),
        reference=str(write_bundle(root / "of_drift")),
        n_permutations=99,
        n_shown=3,
    )
    detect_drift(config, drift=root / "drift")


def make_promotion(root: Path) -> None:
    """The second decision of a registry, on a bundle that is better than the champion."""
    with local_store(root / "store"):
        for seed, out in ((2, root / "first_promotion"), (1, root / "promotion")):
            made = make_run(root / f"of_promotion{seed}", seed=seed)
            promote_bundle(
                PromoteConfig(n_bootstrap=200),
                **made.paths,
                promotion=out,
                report=root / "promotion.html",
            )


def _paths(root: Path, *names: str) -> dict[str, Any]:
    return {name: root / name for name in names}


if __name__ == "__main__":
    main()
