"""Speed of a head trained on cached features, beside a loop that passes the images in every epoch.

The peer is the end-to-end loop over the same frozen backbone: batches are augmented and passed anew
in every epoch, VAL_SELECT too. Ours is mode `frozen` with the default 20 epochs and 4 cached views;
extracting them is part of its time.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import distributed as dist
from transformers import Dinov2Config, Dinov2Model

from components.shared.models.classifier import Classifier, Head
from components.shared.training.classifier.tasks import FrozenTask, ImageTask, SplitData
from components.shared.training.loop.distributed import World
from components.shared.training.session.fit import fit
from components.shared.vision.classifier_spec import ClassifierSpec
from components.train_baseline.config import TrainBaselineConfig
from tests.bench.measure import Result, interleaved
from tests.bench.photographs import ingested, photographs

_N_TRAIN, _N_SELECT, _SIZE, _WIDTH = 48, 16, 224, 192
_CONFIG = TrainBaselineConfig(global_batch_size=16, patience=None, ema_decay=None)
_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def run() -> list[Result]:
    """One result; without augmentation and cached views both must train the same head."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with photographs(_N_TRAIN + _N_SELECT) as files, TemporaryDirectory() as folder:
        data = ingested(files, Path(folder) / "dataset", _SIZE)
        labels = np.array([sample.label for sample in data.samples], dtype=np.int64)
        rows = np.arange(len(labels))
        parts = (
            SplitData(data, rows[:-_N_SELECT], labels[:-_N_SELECT]),
            SplitData(data, rows[-_N_SELECT:], labels[-_N_SELECT:]),
        )
        plain = replace(_CONFIG, augmentation="none", epochs=2)
        torch.testing.assert_close(
            _head(FrozenTask, plain, *parts), _head(ImageTask, plain, *parts), rtol=0, atol=1e-4
        )
        seconds = interleaved(
            lambda: _head(FrozenTask, _CONFIG, *parts),
            lambda: _head(ImageTask, _CONFIG, *parts),
            rounds=3,
        )
    dist.destroy_process_group()
    name = f"frozen head, {_CONFIG.epochs} epochs, {_CONFIG.n_cached_augmentations} cached views"
    return [Result(name, "end-to-end loop", *seconds, goal=4)]


def _head(
    task_class: type[FrozenTask] | type[ImageTask],
    config: TrainBaselineConfig,
    train: SplitData,
    select: SplitData,
) -> torch.Tensor:
    torch.manual_seed(0)
    shape = Dinov2Config(
        hidden_size=_WIDTH,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=518,
        patch_size=14,
    )
    spec = ClassifierSpec(("None", "Roadwork"), _SIZE, *_STATISTICS, "dinov2")
    backbone = Dinov2Model(shape).eval().requires_grad_(False)
    classifier = Classifier(backbone, Head(2 * _WIDTH, 2), spec)
    world = World(0, 1, torch.device("cpu"))
    fit(task_class(config, classifier, train, select, world), config, world)
    return classifier.head.linear.weight.detach()
