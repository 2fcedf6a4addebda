"""Cached features of the images of a labelled folder: full images, larger ones, or tiles.

Pixels pass through the project's decode path, features through its classifier. A cached file is
named after the backbone's weights and the view specification, so that a second run of a study reads
the file.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.labels import label_sources
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.sources.records import Record
from components.shared.contracts.artifacts import sha256_file
from components.shared.contracts.config import canonical_json
from components.shared.contracts.progress import progress
from components.shared.data.decode import decode_resized
from components.shared.data.parallel import ordered_map
from components.shared.models.backbone import image_statistics, load_backbone
from components.shared.models.classifier import Classifier, new_head, normalise
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec

CLASSES = ("None", "Roadwork")
LABEL_MAP = {"1": "Roadwork", "0": "None", "-1": "exclude"}
_BATCH = 32  # views


@dataclass(frozen=True)
class Regime:
    """How images are seen: stored at `image_size`, then as a whole, or cut by `views`."""

    image_size: int
    views: ViewSpec | None = None


@dataclass(frozen=True)
class Features:
    """Features (N, V, 2h) float32, the full image first, and the seconds of their computation."""

    values: npt.NDArray[np.float32]
    seconds: float


def labelled_records(folder: Path) -> list[Record]:
    """The rows of labels.csv with label 1 or 0; those with -1 are excluded."""
    config = SourceConfig(data=str(folder), label_map=LABEL_MAP)
    source = open_source(config)
    return list(source.records(label_sources([source], CLASSES).of_sources[0]))


def features(
    records: list[Record], backbone: Path, regime: Regime, cache: Path, *, precision: str
) -> Features:
    """Read from `cache`, or compute and keep there."""
    weights = sha256_file(backbone / "model.safetensors")
    views = (
        None
        if regime.views is None
        else [regime.views.grid, regime.views.overlap, regime.views.size]
    )
    key = canonical_json(
        [weights, regime.image_size, views, precision, [record.path for record in records]]
    )
    file = cache / (hashlib.sha256(key.encode()).hexdigest()[:16] + ".npy")
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        values = _computed(records, backbone, regime, precision)
        seconds = time.perf_counter() - started
        file.with_suffix(".json").write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
        np.save(file, values, allow_pickle=False)
    seconds = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["seconds"]
    return Features(np.load(file, allow_pickle=False), seconds)


def _computed(
    records: list[Record], backbone: Path, regime: Regime, precision: str
) -> npt.NDArray[np.float32]:
    model = load_backbone(str(backbone)).eval()
    mean, std = image_statistics(str(backbone))
    spec = ClassifierSpec(
        CLASSES, regime.image_size, mean, std, model.config.model_type, regime.views
    )
    classifier = Classifier(model, new_head(2 * model.config.hidden_size, spec), spec).eval()
    images = ordered_map(lambda r: decode_resized(r.read(), size=regime.image_size), records)
    per_batch = max(1, _BATCH // (1 if regime.views is None else regime.views.count))
    found, waiting = [], []
    for position, image in enumerate(
        progress(images, f"features at {regime.image_size}", total=len(records))
    ):
        waiting.append(image)
        if len(waiting) == per_batch or position == len(records) - 1:
            with (
                torch.inference_mode(),
                torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
            ):
                found.append(
                    classifier.features(
                        normalise(torch.from_numpy(np.stack(waiting)), spec)
                    ).float()
                )
            waiting = []
    values = torch.cat(found)
    return np.asarray((values if values.ndim == 3 else values[:, None]).numpy())
