"""One tiny run of all steps, shared by the tests of the phases."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from transformers import Dinov2Config, Dinov2Model

from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.import_backbone.config import ImportBackboneConfig
from components.import_backbone.step import run as import_backbone
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.predict_logits.config import PredictLogitsConfig
from components.predict_logits.step import run as predict_logits
from components.shared.contracts.environment import Variable
from components.shared.storage import StoreSettings
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from tests.once import made_once


@dataclass(frozen=True)
class TinyRun:
    """Paths of every artifact and the configurations that made them."""

    root: Path
    source: Path
    train_config: TrainBaselineConfig

    def __getattr__(self, name: str) -> Path:
        return self.root / name


def write_source(folder: Path, n_images: int = 120) -> None:
    """Noise images, half of them with an orange block; 40 groups; one exact copy."""
    rng = np.random.default_rng(0)
    rows = []
    (folder / "img").mkdir(parents=True)
    for index in range(n_images):
        image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60))
        if index % 2:
            x, y = rng.integers(5, 40), rng.integers(5, 30)
            ImageDraw.Draw(image).rectangle((x, y, x + 30, y + 25), fill=(255, 110, 0))
        image.save(folder / f"img/{index:03d}.jpg", quality=90)
        rows.append([f"img/{index:03d}.jpg", index % 2, f"place{index // 3}", f"day{index % 4}"])
    (folder / "img/copy.jpg").write_bytes((folder / "img/000.jpg").read_bytes())
    rows.append(["img/copy.jpg", 0, "place99", "day0"])
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "label", "group", "day"], *rows])


def write_backbone(folder: Path) -> None:
    """A random DINOv2 of two blocks."""
    import torch

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=14,
        image_size=56,
        mlp_ratio=2,
    )
    Dinov2Model(config).save_pretrained(folder)


def write_backbone_artifact(path: Path) -> None:
    """The same as an artifact; the folder it comes from is beside it."""
    folder = path.with_name(f"{path.name}-folder")
    write_backbone(folder)
    import_backbone(ImportBackboneConfig(backbone=str(folder)), pretrained=path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Ingest to bundle in a few seconds of training; no test writes into its folders."""
    config = TrainBaselineConfig(
        mode="full", epochs=3, learning_rate=2e-3, global_batch_size=16, n_processes=1
    )
    root = made_once(tmp_path_factory, "tiny", lambda root: _run_all(root, config))
    return TinyRun(root, root / "source", config)


def _run_all(root: Path, config: TrainBaselineConfig) -> None:
    write_source(root / "source")
    write_backbone_artifact(root / "backbone")
    run = TinyRun(root, root / "source", config)
    ingest_dataset(IngestConfig(data=str(run.source), image_size=56), dataset=run.dataset)
    split_dataset(
        SplitConfig(min_per_class=2),
        dataset=run.dataset,
        splits=run.splits,
        train_images=run.train_images,
        train_labels=run.train_labels,
    )
    train(run, config, root)
    predict(run, root)
    fit_threshold(
        FitThresholdConfig(n_bootstrap=100),
        val_calib_logits=run.val_calib_logits,
        policy=run.policy,
    )
    evaluate(
        EvaluateConfig(n_bootstrap=100),
        val_test_logits=run.val_test_logits,
        softmax_policy=run.policy,
        val_test_images=run.val_test_images,
        evaluation=run.evaluation,
        report=run.root / "report.html",
    )
    export(run, root / "bundle")


def train(run: TinyRun, config: TrainBaselineConfig, out: Path) -> None:
    """Train on the tiny data with another configuration or into another folder."""
    train_baseline(
        config,
        dataset=run.dataset,
        splits=run.splits,
        backbone=run.backbone,
        checkpoint=out / "checkpoint",
        val_select_logits=out / "val_select_logits",
    )


def predict(run: TinyRun, out: Path, n_processes: int = 1, **options: Any) -> None:
    """Logits of the tiny model."""
    predict_logits(
        PredictLogitsConfig(n_processes=n_processes, **options),
        dataset=run.dataset,
        splits=run.splits,
        checkpoint=run.checkpoint,
        val_calib_logits=out / "val_calib_logits",
        val_test_logits=out / "val_test_logits",
        val_test_images=out / "val_test_images",
        drift_reference=out / "drift_reference",
    )


def export(run: TinyRun, out: Path) -> None:
    """Bundle the tiny model."""
    export_bundle(
        ExportConfig(),
        dataset=run.dataset,
        splits=run.splits,
        checkpoint=run.checkpoint,
        softmax_policy=run.policy,
        evaluation=run.evaluation,
        val_test_images=run.val_test_images,
        drift_reference=run.drift_reference,
        bundle=out,
    )


@pytest.fixture(params=["folder", "store"])
def lineages(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record lineages in a folder, and in a real store."""
    place = str(tmp_path / "lineages")
    if request.param == "store":
        settings: StoreSettings = request.getfixturevalue("s3")
        for name, value in settings.to_environment().items():
            monkeypatch.setenv(name, value)
        place = f"s3://{request.getfixturevalue('bucket')}/lineages"
    monkeypatch.setenv(Variable.LINEAGES, place)
