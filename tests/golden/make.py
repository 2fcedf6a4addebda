"""Write one artifact of every kind, in the current schema, for readers to come: python -m tests.golden.make

Run it when SCHEMA_VERSION changes, never to make a failing test pass: what is stored here is what users have on disk.
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.artifacts import SCHEMA_VERSION
from components.shared.training import checkpoint_files
from components.shared.training.state import TrainingState
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from tests.components.conftest import write_backbone, write_source

FOLDER = Path(__file__).parent / f"schema{SCHEMA_VERSION}"
# Directory name -> kind in its manifest.
KINDS = {
    "dataset": "ImageDataset",
    "splits": "Splits",
    "checkpoint": "Checkpoint",
    "val_calib_logits": "ValCalibLogits",
    "val_test_logits": "ValTestLogits",
    "policy": "Policy",
    "evaluation": "Evaluation",
    "bundle": "Bundle",
    "step-000000003": "TrainingState",
}


def main() -> None:
    """A run of all steps on a few small images."""
    if FOLDER.exists():
        sys.exit(f"{FOLDER} exists; golden artifacts are never rewritten (delete it yourself to do so)")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with contextlib.chdir(root):  # configurations are stored too: relative paths in them
            _run(Path())
        FOLDER.mkdir()
        for folder in KINDS:
            shutil.copytree(root / folder, FOLDER / folder)


def _run(root: Path) -> None:
    write_source(root / "source", 90)
    write_backbone(root / "backbone")
    ingest_dataset(IngestConfig(data=str(root / "source"), image_size=28), dataset=root / "dataset")
    split_dataset(SplitConfig(min_per_class=2), dataset=root / "dataset", splits=root / "splits")
    config = TrainBaselineConfig(backbone=str(root / "backbone"), mode="lora", epochs=2, n_processes=1)
    data = {name: root / name for name in ("dataset", "splits")}
    outputs = {name: root / name for name in ("checkpoint", "val_calib_logits", "val_test_logits")}
    train_baseline(config, **data, **outputs)
    fit_threshold(
        FitThresholdConfig(n_bootstrap=100), val_calib_logits=root / "val_calib_logits", policy=root / "policy"
    )
    inputs = {name: root / name for name in ("val_test_logits", "policy", "dataset")}
    evaluate(EvaluateConfig(n_bootstrap=100), **inputs, evaluation=root / "evaluation", report=root / "report.html")
    parts = {name: root / name for name in ("checkpoint", "policy", "evaluation", "dataset")}
    export_bundle(ExportConfig(), **parts, bundle=root / "bundle")
    state = TrainingState({"weights/w": torch.arange(3.0)}, {"step": 3, "best_epoch": 1})
    checkpoint_files.write(root, state, step="train_baseline", config=config)


if __name__ == "__main__":
    main()
