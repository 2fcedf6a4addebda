"""The features artifacts: rounding of float16, rows across shards, one split alone."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import (
    ArtifactError,
    LeakageViolationError,
    PermanentError,
)
from components.shared.data import features as module
from components.shared.data.features import (
    SHARDS,
    FeatureRecipe,
    Features,
    map_shards,
    open_features,
    rows_per_shard,
    shard_name,
    to_half,
    write_header,
)

RECIPE = FeatureRecipe(3, "moderate", 7, "fp32")
IDS = tuple(f"{number:016x}" for number in range(25))
SHAPE = (3, 2, 4)  # augmentations, views, width


def _values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(25, *SHAPE)).astype(np.float16)


def _write(path: Path, split: str = "TRAIN", *, inner: str = "", more: str = "") -> Features:
    """An artifact of three shards; `inner`: the split that its content names, `more`: a file."""
    with writing(
        path, kind=Kind.features_of(split), step="test", config=Config(), split=split
    ) as out:
        (out / SHARDS).mkdir()
        files = []
        for number, start in enumerate(range(0, 25, 10)):
            files.append(out / SHARDS / shard_name(number))
            np.save(files[-1], _values()[start : start + 10], allow_pickle=False)
        features = map_shards(files, IDS, SHAPE, RECIPE)
        write_header(out, inner or split, features)
        if more:
            (out / more).write_text("more")
    return features


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PASSES_PER_SHARD", 60)  # ten images of SHAPE


def test_rows_of_all_shards_are_read_in_any_order(tmp_path: Path) -> None:
    _write(tmp_path / "features")
    features, manifest = open_features(tmp_path / "features", "TRAIN")
    assert (len(features), features.n_augmentations, features.width) == (25, 3, 4)
    assert manifest.split == "TRAIN"
    rng = np.random.default_rng(1)
    rows, chosen = rng.permutation(25)[:17], rng.integers(3, size=17)
    taken = features.take(rows, chosen)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, _values()[rows, chosen].astype(np.float32))
    blocks = [features.take(rows) for rows in features.blocks()]
    np.testing.assert_array_equal(np.concatenate(blocks), _values()[:, 0].astype(np.float32))


def test_float16_keeps_eleven_binary_digits() -> None:
    rng = np.random.default_rng(2)
    values = (rng.normal(size=10_000) * 10.0 ** rng.integers(-9, 4, 10_000)).astype(np.float32)
    error = np.abs(to_half(values, "x").astype(np.float64) - values)
    large = np.abs(values) >= 2.0**-14
    assert (error[large] <= np.abs(values[large]) * 2.0**-11).all()
    assert (error[~large] <= 2.0**-25).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65_505.0, -1e30])
def test_what_float16_cannot_hold_is_refused(value: float) -> None:
    assert to_half(np.array([65_504.0], dtype=np.float32), "x") == np.float16(65_504)
    with pytest.raises(PermanentError, match=r"x: the largest feature is .*float16 ends at 65,504"):
        to_half(np.array([1.0, value], dtype=np.float32), "x")


def test_shards_depend_on_the_shape_alone() -> None:
    assert rows_per_shard((4, 768)) == 15
    assert rows_per_shard((100, 768)) == 1


def test_another_split_is_refused_by_manifest_and_by_content(tmp_path: Path) -> None:
    _write(tmp_path / "train")
    with pytest.raises(LeakageViolationError, match="holds split 'TRAIN'"):
        open_features(tmp_path / "train", "VAL_SELECT")
    _write(tmp_path / "relabelled", inner="VAL_TEST")
    with pytest.raises(LeakageViolationError, match="holds split 'VAL_TEST'"):
        open_features(tmp_path / "relabelled", "TRAIN")
    with pytest.raises(KeyError):
        open_features(tmp_path / "train", "VAL_CALIB")


def test_files_that_no_reader_knows_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "features", more="labels.npy")
    with pytest.raises(ArtifactError, match=r"need 3 shards and features.json, .*5 files"):
        open_features(tmp_path / "features", "TRAIN")


@pytest.mark.parametrize("change", [{"sample_ids": []}, {"shape": []}, {"recipe": None}])
def test_images_without_features_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with writing(
        tmp_path / "x", kind=Kind.TRAIN_FEATURES, step="test", config=Config(), split="TRAIN"
    ) as out:
        document = {
            "split": "TRAIN",
            "sample_ids": list(IDS),
            "shape": list(SHAPE),
            "rows_per_shard": 10,
            "recipe": dataclasses.asdict(RECIPE),
        }
        (out / "features.json").write_text(json.dumps(document | change))
    with pytest.raises(ArtifactError):
        open_features(tmp_path / "x", "TRAIN")


def test_an_empty_artifact_says_so(tmp_path: Path) -> None:
    with writing(
        tmp_path / "x", kind=Kind.TRAIN_FEATURES, step="test", config=Config(), split="TRAIN"
    ) as out:
        write_header(out, "TRAIN", None)
    features, manifest = open_features(tmp_path / "x", "TRAIN")
    assert len(features) == 0
    assert "a run that trains the backbone" in features.problems(manifest, {}, RECIPE)[0]


def test_one_set_has_one_recipe_whatever_else_is_asked_for() -> None:
    @dataclasses.dataclass(frozen=True)
    class Options:
        augmentation: str
        n_cached_augmentations: int
        seed: int
        precision: str = "fp32"

    one = FeatureRecipe.of(Options("none", 4, 3))
    assert one == FeatureRecipe.of(Options("moderate", 1, 5)) == RECIPE.unaugmented()
    assert FeatureRecipe.of(Options("moderate", 3, 7)) == RECIPE
    assert RECIPE.differences(dataclasses.replace(RECIPE, seed=8)) == ["seed=7, not 8"]
