"""What a rank does after training: the merge of adapters is verified on images of VAL_SELECT."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from components.shared.data.splits import read_splits
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.train_baseline import train as train_module
from tests.components.conftest import TinyRun
from tests.studies.heads import alone

WORLD = World(0, 1, torch.device("cpu"))


def test_one_image_of_val_select_is_enough_to_verify_a_merge(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = read_splits(tiny.splits)
    others = splits.ids("VAL_SELECT")[1:]
    few = dataclasses.replace(splits, of=splits.of | dict.fromkeys(others, "EXCLUDED"))
    monkeypatch.setattr(train_module, "read_splits", lambda _path: few)
    config = dataclasses.replace(tiny.train_config, mode="lora", epochs=1)
    checkpoints = CheckpointWriter(tmp_path, config, step="train_baseline")
    paths = (tiny.dataset, tiny.splits, tiny.backbone, tmp_path)
    with alone():
        train_module.train(config, *paths, WORLD, checkpoints)
    assert len(np.load(tmp_path / "VAL_SELECT.npy")) == 1
