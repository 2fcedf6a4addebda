"""Phase 3 on tiny data: gates are trained, stored, and reproduce their scores."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.shared.contracts.artifacts import sha256_file, verify_dir
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.classifier import Classifier
from components.shared.models.gate import Gate
from components.shared.policies.logits import read_logits
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.train_gate.config import TrainGateConfig
from components.train_gate.step import run
from tests.components.conftest import TinyRun

CONFIG = TrainGateConfig(epochs=2, global_batch_size=16, n_cached_augmentations=2, n_processes=1)


def _train(
    tiny: TinyRun, config: TrainGateConfig, out: Path, checkpoint: Path | None = None
) -> dict[str, float]:
    return run(
        config,
        dataset=tiny.dataset,
        splits=tiny.splits,
        checkpoint=checkpoint or tiny.checkpoint,
        gate_checkpoint=out / "gate_checkpoint",
        val_calib_logits=out / "calib",
        val_test_logits=out / "test",
    )


@pytest.mark.parametrize("loss", ["selectivenet", "gatekeeper"])
def test_stored_gate_scores_come_from_the_stored_gate(
    tiny: TinyRun, tmp_path: Path, loss: str
) -> None:
    config = TrainGateConfig.from_mapping(CONFIG.to_json() | {"gate_loss": loss})
    scores = _train(tiny, config, tmp_path)
    assert scores["val_select/augrc"] == -scores["val_select/minus_augrc"]
    logits, _ = read_logits(tmp_path / "test", "VAL_TEST")
    base, _ = read_logits(tiny.val_test_logits, "VAL_TEST")
    assert logits.gate is not None
    assert logits.sample_ids == base.sample_ids
    assert (logits.labels == base.labels).all()
    classifier = Classifier.load(tmp_path / "gate_checkpoint")
    gate = Gate.load(tmp_path / "gate_checkpoint", n_features=classifier.head.linear.in_features)
    part = SplitData.of(Dataset.open(tiny.dataset), read_splits(tiny.splits), "VAL_TEST")
    world = World(0, 1, torch.device("cpu"))
    with torch.no_grad():
        features = classifier.features(
            part.pixels(np.arange(len(part)), classifier.spec, world.device)
        )
        again = classifier.head(features)
        np.testing.assert_allclose(again.numpy(), logits.logits, atol=1e-5)
        np.testing.assert_allclose(gate.scores(features, again).numpy(), logits.gate, atol=1e-4)
    if loss == "gatekeeper":
        np.testing.assert_allclose(logits.gate, np.abs(logits.margin), atol=1e-4)


def test_training_again_gives_the_same_bytes(tiny: TinyRun, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _train(tiny, CONFIG, tmp_path / name)
    for artifact, kind, split in (
        ("gate_checkpoint", "Checkpoint", None),
        ("test", "ValTestLogits", "VAL_TEST"),
    ):
        files = verify_dir(tmp_path / "a" / artifact, kind, split=split).files
        ours, theirs = (
            {f: sha256_file(tmp_path / n / artifact / f) for f in files} for n in ("a", "b")
        )
        assert ours == theirs


@pytest.mark.parametrize("loss", ["selectivenet", "gatekeeper"])
def test_two_processes_train_the_gate_of_one(tiny: TinyRun, tmp_path: Path, loss: str) -> None:
    """Statistics of a batch are those of the global batch, on any number of processes."""
    changes = {"gate_loss": loss, "conformal_weight": 1.0, "conformal_alpha": 0.4}
    found = {}
    for count in (1, 2):
        config = TrainGateConfig.from_mapping(CONFIG.to_json() | changes | {"n_processes": count})
        _train(tiny, config, tmp_path / str(count))
        found[count] = read_logits(tmp_path / str(count) / "test", "VAL_TEST")[0]
    np.testing.assert_allclose(found[2].logits, found[1].logits, atol=1e-5)
    assert found[1].gate is not None
    assert found[2].gate is not None
    np.testing.assert_allclose(found[2].gate, found[1].gate, atol=1e-5)


def test_conformal_risk_joins_the_gates_loss(tiny: TinyRun, tmp_path: Path) -> None:
    config = CONFIG.to_json() | {"conformal_weight": 1.0, "conformal_alpha": 0.4}
    _train(tiny, CONFIG, tmp_path / "plain")
    _train(tiny, TrainGateConfig.from_mapping(config), tmp_path / "conformal")
    first, second = (
        read_logits(tmp_path / n / "test", "VAL_TEST")[0].logits for n in ("plain", "conformal")
    )
    assert not np.array_equal(first, second)


def test_parts_of_other_runs_are_refused(tiny: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no manifest"):
        _train(tiny, CONFIG, tmp_path, checkpoint=tiny.root)
    with pytest.raises(DataError, match="positive_class='Works'"):
        _train(tiny, TrainGateConfig(positive_class="Works"), tmp_path)
    assert not (tmp_path / "gate_checkpoint").exists()
