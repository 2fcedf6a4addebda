"""Features are computed once: read by training and gate, resumed shard by shard, equal bytes on any
number of processes.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components.extract_features import step as step_module
from components.extract_features.config import ExtractFeaturesConfig
from components.extract_features.step import run
from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import (
    ArtifactError,
    LeakageViolationError,
    TransientError,
)
from components.shared.data.dataset import Dataset
from components.shared.data.features import open_features
from components.shared.data.splits import read_splits
from components.shared.models.classifier import Classifier, normalise
from components.shared.policies.logits import read_logits
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from components.train_gate.config import TrainGateConfig
from components.train_gate.step import run as train_gate
from tests.components.conftest import TinyRun

CONFIG = ExtractFeaturesConfig(n_processes=1, n_cached_augmentations=2, precision="fp32")
TRAINED = {"epochs": 2, "global_batch_size": 16, "n_cached_augmentations": 2, "n_processes": 1}
NAMES = {"TRAIN": "train_features", "VAL_SELECT": "val_select_features"}


def _extract(
    tiny: TinyRun, out: Path, config: ExtractFeaturesConfig = CONFIG, **changed: Path
) -> None:
    inputs = {name: tiny.root / name for name in ("dataset", "splits", "backbone")} | changed
    run(config, **inputs, **{name: out / name for name in NAMES.values()})


@pytest.fixture(scope="module")
def extracted(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both artifacts."""
    out = tmp_path_factory.mktemp("extracted")
    _extract(tiny, out)
    return out


def _digests(out: Path) -> list[str]:
    return [read_manifest(out / name).content_digest for name in NAMES.values()]


def test_features_are_the_backbones(tiny: TinyRun, extracted: Path) -> None:
    data, assignment = Dataset.open(tiny.dataset), read_splits(tiny.splits)
    for split, name in NAMES.items():
        features, manifest = open_features(extracted / name, split)
        assert list(features.sample_ids) == assignment.ids(split)
        assert features.shape == (2 if split == "TRAIN" else 1, 64)
        assert set(manifest.inputs) == {"dataset", "splits", "backbone"}

    # A checkpoint's own specification has the backbone's mean and deviation.
    spec = Classifier.load(tiny.checkpoint).spec
    from components.shared.models.backbone import load_backbone

    backbone = load_backbone(str(tiny.backbone))
    rows = np.array([data.index[sample_id] for sample_id in assignment.ids("TRAIN")])
    classifier = Classifier(backbone, Classifier.load(tiny.checkpoint).head, spec).eval()
    with torch.no_grad():
        expected = classifier.features(normalise(torch.from_numpy(data.images(rows)), spec))
    features, _ = open_features(extracted / "train_features", "TRAIN")
    all_rows = np.arange(len(features))
    np.testing.assert_allclose(features.take(all_rows), expected.numpy(), rtol=5e-4, atol=1e-6)
    augmented = features.take(all_rows, np.ones(len(features), dtype=np.int64))
    assert np.abs(augmented - features.take(all_rows)).max() > 0.01


def test_an_interruption_loses_one_shard_and_changes_no_byte(
    tiny: TinyRun, extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREETVISION_CHECKPOINTS", str(tmp_path / "checkpoints"))
    real = step_module._write
    monkeypatch.setattr(step_module, "_write", _planted)
    with pytest.raises(TransientError, match="planted"):
        _extract(tiny, tmp_path / "out")

    (parts,) = (tmp_path / "checkpoints").glob("*/parts")
    left = {path.name: path.stat().st_mtime_ns for path in parts.rglob("features.npy")}
    assert left
    lost, *kept = sorted(parts.iterdir())
    shutil.rmtree(lost)
    inodes = {path.name: (path / "features.npy").stat().st_ino for path in kept}

    found: dict[str, int] = {}

    def write(*arguments: object) -> None:
        for path in parts.iterdir():
            found[path.name] = (path / "features.npy").stat().st_ino
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(step_module, "_write", write)
    _extract(tiny, tmp_path / "out")
    assert {name: found[name] for name in inodes} == inodes
    assert lost.name in found
    assert _digests(tmp_path / "out") == _digests(extracted)
    assert not list((tmp_path / "checkpoints").glob("*/parts"))


def _planted(*_: object) -> None:
    raise TransientError("planted")


def test_two_processes_write_the_bytes_of_one(
    tiny: TinyRun, extracted: Path, tmp_path: Path
) -> None:
    config = ExtractFeaturesConfig.from_mapping(CONFIG.to_json() | {"n_processes": 2})
    _extract(tiny, tmp_path, config)
    assert _digests(tmp_path) == _digests(extracted)


def test_nobody_reads_features_where_the_backbone_is_trained(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "TrainingSession", None)  # no process is started
    config = ExtractFeaturesConfig.from_mapping(CONFIG.to_json() | {"needed": False})
    _extract(tiny, tmp_path, config)
    for split, name in NAMES.items():
        features, manifest = open_features(tmp_path / name, split)
        assert len(features) == 0
        assert set(manifest.inputs) == {"dataset", "splits", "backbone"}
    with pytest.raises(ArtifactError, match="a run that trains the backbone"):
        _train(tiny, tmp_path, tmp_path)


def _train(tiny: TinyRun, out: Path, features: Path | None, **changes: object) -> None:
    given = {} if features is None else {name: features / name for name in NAMES.values()}
    train_baseline(
        TrainBaselineConfig.from_mapping(TRAINED | {"mode": "frozen"} | changes),
        dataset=tiny.dataset,
        splits=tiny.splits,
        backbone=tiny.backbone,
        checkpoint=out / "checkpoint",
        val_select_logits=out / "val_select_logits",
        **given,
    )


def _gate(tiny: TinyRun, out: Path, features: Path | None, **changes: object) -> None:
    given = {} if features is None else {name: features / name for name in NAMES.values()}
    train_gate(
        TrainGateConfig.from_mapping(TRAINED | changes),
        dataset=tiny.dataset,
        splits=tiny.splits,
        checkpoint=out / "checkpoint",
        gate_checkpoint=out / "gate",
        val_calib_logits=out / "calib",
        val_test_logits=out / "test",
        **given,
    )


def test_training_and_gate_read_them_and_learn_what_they_learn_without(
    tiny: TinyRun, extracted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, features in (("read", extracted), ("computed", None)):
        (tmp_path / name).mkdir()
        _train(tiny, tmp_path / name, features)
        _gate(tiny, tmp_path / name, features)
    assert "computes its own" not in capsys.readouterr().out
    for folder in ("checkpoint", "gate"):
        inputs = [read_manifest(tmp_path / n / folder).inputs for n in ("read", "computed")]
        assert set(inputs[0]) - set(inputs[1]) == set(NAMES.values())
    for artifact, split in (("val_select_logits", "VAL_SELECT"), ("test", "VAL_TEST")):
        ours, theirs = (
            read_logits(tmp_path / name / artifact, split)[0].logits
            for name in ("read", "computed")
        )
        np.testing.assert_array_equal(ours, theirs)


def test_a_gate_of_other_options_or_of_another_backbone_computes_its_own(
    tiny: TinyRun, extracted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny.checkpoint, tmp_path / "checkpoint")  # trained in full
    _gate(tiny, tmp_path, extracted)
    assert "not trained on the given features: the step computes" in capsys.readouterr().out
    (tmp_path / "frozen").mkdir()
    _train(tiny, tmp_path / "frozen", extracted)
    _gate(tiny, tmp_path / "frozen", extracted, n_cached_augmentations=3)
    assert "n_augmentations=2, not 3: the step computes" in capsys.readouterr().out


def test_features_of_other_options_or_another_split_are_refused(
    tiny: TinyRun, extracted: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="seed=0, not 1; extract the features of this run"):
        _train(tiny, tmp_path, extracted, seed=1)
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for name, other in zip(NAMES.values(), reversed(NAMES.values()), strict=True):
        shutil.copytree(extracted / other, swapped / name)
    with pytest.raises(LeakageViolationError, match="holds split 'VAL_SELECT'"):
        _train(tiny, tmp_path, swapped)
