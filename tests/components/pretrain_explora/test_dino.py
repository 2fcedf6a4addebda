"""A step of self-distillation reads each image once, and works in the parts that fit."""

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.dino import DinoTask
from components.pretrain_explora.explora import prepare_explora
from components.pretrain_explora.student import PrototypeHead, Student
from components.pretrain_explora.train_crops import TrainCrops
from components.shared.data.train_images import TrainImages
from components.shared.training.loop.distributed import World
from tests.golden.make import FOLDER

WORLD = World(0, 1, torch.device("cpu"))
CONFIG = PretrainExploraConfig(
    explora_objective="dino",
    global_batch_size=8,
    explora_local_crops=3,
    explora_prototypes=16,
    explora_head_width=16,
)


class _Counting(TrainImages):
    """Remembers which images are read."""

    def images(self, positions: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """As of every data set."""
        vars(self).setdefault("positions_read", []).extend(positions.tolist())
        return super().images(positions, out)


def _task() -> DinoTask:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=4,
        image_size=16,
        mlp_ratio=2,
    )
    backbone = prepare_explora(Dinov2Model(config), rank=2, alpha=2.0, unfrozen_blocks=1)
    images = _Counting(**vars(TrainImages.open(FOLDER / "train_images")))
    crops = TrainCrops(images, 16, (0.5,) * 3, (0.25,) * 3, WORLD.device)
    return DinoTask(CONFIG, Student(backbone, PrototypeHead(16, 16, 16)), crops, WORLD)


def _loss(task: DinoTask, *chunks: range) -> float:
    """The loss of one step, in micro-batches."""
    positions = np.arange(8)[::-1].copy()
    task.begin_step(positions, np.arange(8), 1)
    return sum(
        float(task.loss(task.module, positions[np.array(chunk)], np.array(chunk), 1).detach())
        for chunk in chunks
    )


def test_a_step_reads_each_image_once() -> None:
    """2 large and 3 small crops of each, in micro-batches."""
    task = _task()
    images = task.crops.images
    vars(images).pop("positions_read")  # those of the collapse monitor
    _loss(task, range(4), range(4, 8))
    assert sorted(vars(images)["positions_read"]) == list(range(8))
    task.reader.close()


def test_a_teacher_that_runs_out_of_memory_goes_on_in_halves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = _loss(_task(), range(8))
    sizes: list[int] = []
    original = Student.teacher_logits

    def limited(
        self: Student, large: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(large))
        if len(large) > 4:
            raise torch.OutOfMemoryError("planted")
        return original(self, large, places)

    task = _task()
    monkeypatch.setattr(Student, "teacher_logits", limited)
    assert _loss(task, range(8)) == pytest.approx(expected, rel=1e-5)
    assert sizes == [16, 8, 4, 4, 4, 4]
    assert "out of memory: 4 images at a time from here on" in capsys.readouterr().out
    # The next step begins with what fitted.
    _loss(task, range(8))
    assert max(sizes[6:]) == 4


def test_micro_batches_sum_to_the_whole() -> None:
    whole, parts = _loss(_task(), range(8)), _loss(_task(), range(3), range(3, 4), range(4, 8))
    assert parts == pytest.approx(whole, rel=1e-5)
