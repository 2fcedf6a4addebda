"""Data, backbones and trainings that the checks and timings of the GPU path share.

Backbones have random weights and images random pixels: speed, memory and numerics do not depend on
what they show, and nothing is downloaded. A small workload runs all of it on a CPU.
"""

import functools
import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.options import ComputeConfig
from components.shared.data.dataset import Dataset, map_shards, write_shards
from components.shared.models.blocks import prepare_blocks
from components.shared.models.classifier import Classifier
from components.shared.training.classifier.build import build
from components.shared.training.classifier.tasks import ImageTask
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.shared.training.loop.read_ahead import ReadAhead
from components.shared.training.loop.trainer import Trainer
from components.shared.training.session.compute import prepare_computation, resolved
from components.train_baseline.config import TrainBaselineConfig

C = TypeVar("C", bound=ComputeConfig)

FAMILIES = ("dinov2", "dinov3_vit")
# Width, depth and heads of the published backbones.
_SHAPES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}
_SMALL_SHAPES = {"S": (32, 2, 2)}


@dataclass(frozen=True)
class Workload:
    """What is checked, where, and how much of it.

    Attributes:
        folder: For images and backbones.
        device: Where the checks compute; they compare it with a CPU.
        small: A rehearsal on a CPU: two blocks, small images, few steps.
        batch: Images of a step; 0: few.
    """

    folder: Path
    device: torch.device
    small: bool = False
    batch: int = 0

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def world(self) -> World:
        """A group of one."""
        return World(0, 1, self.device)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the backbones' sizes."""
        return tuple(_SMALL_SHAPES if self.small else _SHAPES)

    @property
    def families(self) -> tuple[str, ...]:
        """Backbones that are trained; a rehearsal has the one with a buffer."""
        return FAMILIES[1:] if self.small else FAMILIES

    @property
    def n_steps(self) -> int:
        """Steps of a training whose weights are compared."""
        return 2 if self.small else 4

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return 56 if self.small else 224

    @property
    def batch_size(self) -> int:
        """Images of a step."""
        return self.batch or (8 if self.small else 32)

    @functools.cached_property
    def data(self) -> Dataset:
        """Random images in memory-mapped shards."""
        return self._dataset(self.image_size, 48 if self.small else 8192)

    def _dataset(self, size: int, count: int) -> Dataset:
        folder = self.folder / f"images-{size}"
        if not folder.exists():
            folder.mkdir()
            base = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
            write_shards(folder, (np.roll(base, i, 0) for i in range(count)), count, size)
        shards = map_shards(folder, count, size)
        return Dataset(folder, cast(Manifest, None), ("None", "Roadwork"), size, [], shards)

    @functools.cached_property
    def split(self) -> SplitData:
        """All images, half of each class."""
        count = sum(len(shard) for shard in self.data.shards)
        return SplitData(self.data, np.arange(count), np.arange(count) % 2)

    def backbone(self, size: str, family: str = "dinov2") -> Path:
        """A folder with a random backbone, as pretrained ones are distributed."""
        folder = self.folder / f"{family}-{size}"
        if not folder.exists():
            _random_backbone((_SMALL_SHAPES if self.small else _SHAPES)[size], family, folder)
        return folder

    def config(self, **changes: Any) -> TrainBaselineConfig:
        """A configuration of many epochs: no step is the last. PyTorch is set as it says."""
        values = {"epochs": 1000, "global_batch_size": self.batch_size, "n_processes": 1}
        return self.prepared(TrainBaselineConfig(**(values | changes)))

    def prepared(self, config: C) -> C:
        """Resolve a configuration as a rank does; a CPU has fp32 in place of TF32."""
        if config.precision == "tf32" and not self.on_gpu:
            config = replace(config, precision="fp32")
        config = resolved(config, self.device)
        prepare_computation(config)
        return config

    def classifier(self, size: str, config: TrainBaselineConfig, family: str) -> Classifier:
        """A classifier on the device, the same for equal arguments, as a training has it."""
        folder = self.backbone(size, family)  # draws numbers where it is not there yet
        torch.manual_seed(0)
        classifier = build(config, self.data, folder).to(self.device)
        prepare_blocks(classifier.backbone, config)
        return classifier

    def trainer(self, size: str, family: str = "dinov2", **changes: Any) -> Trainer:
        """A training that has not begun; `changes` are options of train_baseline."""
        config, world = self.config(**changes), self.world
        classifier = self.classifier(size, config, family)
        return Trainer(ImageTask(config, classifier, self.split, self.split, world), config, world)

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def forget(self) -> None:
        """Free what is no longer used, and begin to measure the peak of memory anew."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
        self.forget_peak()

    def forget_peak(self) -> None:
        """Begin to measure the peak of memory anew."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()

    @property
    def peak_gib(self) -> float | None:
        """Most memory that tensors took since it was forgotten; None on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else None


def weights(trainer: Trainer) -> torch.Tensor:
    """All trained weights, (n,) float64 on the CPU."""
    return torch.cat([p.detach().flatten().double().cpu() for p in trainer.parameters])


def trained(trainer: Trainer, steps: range) -> Trainer:
    """Train some steps."""
    for step in steps:
        trainer.step(step)
    trainer.close()
    return trainer


def part(data: Dataset, count: int) -> npt.NDArray[np.uint8]:
    """The first images, (count, S, S, 3)."""
    return data.images(np.arange(count))


def without_reading(task: ImageTask, images: torch.Tensor) -> None:
    """Give the task images (B, S, S, 3) that are on the device: reading costs nothing."""
    task.reader.close()
    task.reader = cast(ReadAhead, _Ready(images))


@dataclass(frozen=True)
class _Ready:
    """A reader whose images stand for any that are asked for."""

    pixels: torch.Tensor

    def expect(self, positions: npt.NDArray[np.int64]) -> None:
        """Read nothing."""

    def images(self, positions: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return as many images as there are positions."""
        return self.pixels[: len(positions)]

    def close(self) -> None:
        """End nothing."""


def _random_backbone(shape: tuple[int, int, int], family: str, folder: Path) -> None:
    width, depth, heads = shape
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    if family == "dinov2":
        model = Dinov2Model(Dinov2Config(**sizes, image_size=518, patch_size=14))
    else:
        tokens = {"intermediate_size": 4 * width, "patch_size": 14, "num_register_tokens": 4}
        model = DINOv3ViTModel(DINOv3ViTConfig(**sizes, **tokens))
    model.save_pretrained(folder)
