"""Study of adapted backbones on real roads, for the rows of `gtsdb`.

`python -m tests.studies.gtsdb_adapted FOLDER explora|lora [name=value ...]`

For every recording day a backbone that has seen no image of it: `explora` runs the phase
pretrain_explora on the pixels of the other days, without labels; `lora` trains adapters and head on
the other days' labels with the phase's task and the project's loop, for a fixed number of epochs.
Further arguments are parameters of the phase. Results lie in FOLDER/<explora or
lora>-<digest>/<day>, and are kept: a day that is there is not computed again. `lora` also leaves
`margins.npy`, every image scored by the model that has not seen its day, for `gtsdb --margins
lora=FILE`.
"""

import argparse
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from components.import_backbone.config import ImportBackboneConfig
from components.import_backbone.step import run as import_backbone
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.step import run as pretrain_explora
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.data import train_images
from components.shared.data.dataset import Dataset
from components.shared.training.classifier.build import build
from components.shared.training.classifier.tasks import ImageTask
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData, predict
from components.shared.training.session.fit import fit
from components.train_baseline.config import TrainBaselineConfig
from tests.studies import heads
from tests.studies.features import CLASSES, LABEL_MAP, labelled_records
from tests.studies.gtsdb import SHARED

# Chosen before anything was scored, by what two cores can do in an hour each.
RECIPES: dict[str, dict[str, Any]] = {
    "explora": {
        "explora_objective": "dino",
        "epochs": 2,
        "global_batch_size": 16,
        "explora_crop_size": 168,
        "explora_local_crops": 2,
        "ema_decay": 0.95,
        "precision": "bf16",
        "n_processes": 1,
    },
    "lora": {
        "mode": "lora",
        "epochs": 5,
        "global_batch_size": 32,
        "class_weights": "balanced",
        "precision": "bf16",
        "n_processes": 1,
    },
}
IMAGE_SIZE = {"explora": 448, "lora": 224}  # crops of larger images show what tiles show
Config = PretrainExploraConfig | TrainBaselineConfig


def main() -> None:
    """Print a line for every day."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="folder of all results")
    parser.add_argument("kind", choices=("explora", "lora"))
    parser.add_argument("changes", nargs="*", metavar="name=value", help="options of the phase")
    parsed = parser.parse_args()
    root, kind = parsed.folder, parsed.kind
    pairs = (pair.split("=", 1) for pair in parsed.changes)
    changes = {name: yaml.safe_load(value) for name, value in pairs}
    config_class: type[Config] = {"explora": PretrainExploraConfig, "lora": TrainBaselineConfig}[
        kind
    ]
    config = config_class.from_mapping(RECIPES[kind] | changes)
    data = Dataset.open(prepare(root, IMAGE_SIZE[kind]))
    out = root / f"{kind}-{config.digest()[:12]}"
    for day in sorted({sample.attributes["recording_day"] for sample in data.samples}):
        started = time.perf_counter()
        if not (out / day).exists():
            adapt(root, data, day, config, out / day)
        print(f"{out / day}: {time.perf_counter() - started:.0f} s", flush=True)
    if kind == "lora":
        _gather(out, data)


def prepare(root: Path, image_size: int) -> Path:
    """Write data set and backbone as artifacts, unless they exist; return the data set's path."""
    dataset = root / f"dataset-{image_size}"
    if not dataset.exists():
        source = SHARED / "data/gtsdb"
        config = IngestConfig(
            data=str(source), label_map=LABEL_MAP, class_names=CLASSES, image_size=image_size
        )
        ingest_dataset(config, dataset=dataset)
    if not (root / "pretrained").exists():
        pretrained = ImportBackboneConfig(backbone=str(SHARED / "weights/dinov2-small-imgfocus"))
        import_backbone(pretrained, pretrained=root / "pretrained")
    return dataset


def adapt(root: Path, data: Dataset, day: str, config: Config, out: Path) -> None:
    """One backbone, without the images of `day`."""
    if isinstance(config, PretrainExploraConfig):
        images = root / "train_images" / day
        if not images.exists():
            _write_train_images(data, day, config, images)
        pretrain_explora(config, train_images=images, pretrained=root / "pretrained", adapted=out)
        return
    with heads.alone():
        _train(root, data, day, config, out)


def _write_train_images(data: Dataset, day: str, config: Config, path: Path) -> None:
    ids = [sample.sample_id for sample in data.samples if sample.attributes["recording_day"] != day]
    with writing(
        path,
        kind=Kind.TRAIN_IMAGES,
        step="gtsdb_adapted",
        config=config,
        inputs={"dataset": data.manifest},
        split=train_images.SPLIT,
    ) as out:
        train_images.write_train_images(out, data, ids)


class _LastEpoch(ImageTask):
    """Nobody chooses an epoch: there are no images to choose it by."""

    def evaluate(self) -> dict[str, float]:
        """Nothing."""
        return {}


def _train(root: Path, data: Dataset, day: str, config: TrainBaselineConfig, out: Path) -> None:
    """The classifier, and its margins of the day left out in `margins.npy`."""
    of_day = np.array([sample.attributes["recording_day"] == day for sample in data.samples])
    labels = np.array([sample.label for sample in data.samples], dtype=np.int64)
    others, left_out = (
        SplitData(data, rows, labels[rows])
        for rows in (np.flatnonzero(~of_day), np.flatnonzero(of_day))
    )
    torch.manual_seed(config.seed)
    world = World(0, 1, torch.device("cpu"))
    classifier = build(config, data, root / "pretrained")
    task = _LastEpoch(config, classifier, others, left_out, world)
    task.monitor = None
    fit(task, dataclasses.replace(config, patience=None), world)
    logits = predict(classifier, left_out, world, precision=config.precision).astype(np.float64)
    classifier.backbone = classifier.backbone.merge_and_unload()
    partial = out.with_name(out.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    classifier.save(partial)
    np.save(partial / "margins.npy", logits[:, 1] - logits[:, 0], allow_pickle=False)
    partial.rename(out)


def _gather(out: Path, data: Dataset) -> None:
    """Write margins.npy (N,) in the order of the study's records; exact copies are one sample."""
    margin_of: dict[str, float] = {}
    for day in sorted({sample.attributes["recording_day"] for sample in data.samples}):
        ids = [
            sample.sample_id for sample in data.samples if sample.attributes["recording_day"] == day
        ]
        margin_of |= dict(
            zip(ids, np.load(out / day / "margins.npy", allow_pickle=False).tolist(), strict=True)
        )
    records = labelled_records(SHARED / "data/gtsdb")
    margins = [margin_of[hashlib.sha256(record.read()).hexdigest()[:16]] for record in records]
    np.save(out / "margins.npy", np.array(margins), allow_pickle=False)


if __name__ == "__main__":
    main()
