"""Shards of features: the same bytes from any number of ranks, from any attempt, in any size."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.shared.contracts.options import LaunchConfig
from components.shared.data import features as data_features
from components.shared.data.dataset import Dataset
from components.shared.data.features import FeatureRecipe
from components.shared.data.splits import read_splits
from components.shared.models.classifier import Classifier, new_head
from components.shared.training.checkpoint.parts import Parts
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData, augmented_features
from components.shared.training.session import features as module
from components.shared.training.session.features import (
    computed_features,
    export_features,
    in_blocks,
    opened_features,
)
from components.shared.vision.view_spec import ViewSpec
from tests.components.conftest import TinyRun

RECIPE = FeatureRecipe(3, "moderate", 1, "fp32")
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_features, "_PASSES_PER_SHARD", 60)


def _splits(tiny: TinyRun) -> tuple[SplitData, SplitData]:
    data, assignment = Dataset.open(tiny.dataset), read_splits(tiny.splits)
    return SplitData.of(data, assignment, "TRAIN"), SplitData.of(data, assignment, "VAL_SELECT")


def _parts(folder: Path) -> Parts:
    return Parts(folder, LaunchConfig(), step="test")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        file.parent.name: file.read_bytes() for file in sorted(folder.glob("parts/*/features.npy"))
    }


def test_ranks_divide_the_shards_and_write_the_bytes_of_one(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks are threads here: they meet on the disk alone."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    splits = _splits(tiny)
    classifier = Classifier.load(tiny.checkpoint)
    alone = computed_features(classifier, *splits, RECIPE, ALONE, _parts(tmp_path / "one"))
    assert len(alone.train.shards) > 2

    computed: list[int] = []

    def rank(number: int) -> None:
        def counted(*arguments: Any, **options: Any) -> torch.Tensor:
            computed.append(number)
            return augmented_features(*arguments, **options)

        monkeypatch.setattr(module, "augmented_features", counted)
        own, world = Classifier.load(tiny.checkpoint), World(number, 2, ALONE.device)
        found = computed_features(own, *splits, RECIPE, world, _parts(tmp_path / "two"))
        assert len(found.train) == len(splits[0])

    with ThreadPoolExecutor(2) as ranks:
        list(ranks.map(rank, range(2), timeout=60))
    assert len(computed) == len(alone.train.shards) + len(alone.select.shards)
    assert _bytes(tmp_path / "two") == _bytes(tmp_path / "one")


def test_a_finished_shard_is_not_computed_again(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, splits = Classifier.load(tiny.checkpoint), _splits(tiny)
    parts = _parts(tmp_path)
    computed_features(classifier, *splits, RECIPE, ALONE, parts)
    monkeypatch.setattr(module, "augmented_features", None)
    again = computed_features(classifier, *splits, RECIPE, ALONE, parts)
    assert len(again.train) == len(splits[0])


def test_each_node_computes_what_it_reads(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 of two nodes of one rank each, of which the other's disk is not seen."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    classifier, splits = Classifier.load(tiny.checkpoint), _splits(tiny)
    world = World(1, 2, ALONE.device)
    found = computed_features(classifier, *splits, RECIPE, world, _parts(tmp_path))
    assert len(found.select) == len(splits[1])


def test_views_have_an_axis_and_artifacts_hold_what_was_computed(
    tiny: TinyRun, tmp_path: Path
) -> None:
    base, splits = Classifier.load(tiny.checkpoint), _splits(tiny)
    views = ViewSpec(2, 0.0, False, 28, "max", 1, 1.0, "Roadwork")
    spec = dataclasses.replace(base.spec, views=views)
    classifier = Classifier(base.backbone, new_head(64, spec), spec).eval()
    parts = _parts(tmp_path)
    found = computed_features(classifier, *splits, RECIPE, ALONE, parts)
    assert found.train.shape == (3, 5, 64)
    assert found.select.shape == (1, 5, 64)

    logits = in_blocks(classifier.head, found.select, ALONE)
    rows = np.arange(len(found.select))
    with torch.no_grad():
        pixels = splits[1].pixels(rows, spec, ALONE.device)
        expected = classifier.head(classifier.features(pixels))
    torch.testing.assert_close(logits, expected, rtol=1e-2, atol=2e-3)

    for split, features in zip(("TRAIN", "VAL_SELECT"), found, strict=True):
        export_features(tmp_path / split, split, features, parts)
        shards = sorted((tmp_path / split / "shards").iterdir())
        assert [shard.stat().st_nlink for shard in shards] == [2] * len(features.shards)
    assert opened_features(None, tmp_path) is None
