"""A search over heads ends with the same best after it was killed, and sees two splits alone."""

import json
from pathlib import Path

import pytest

from components.extract_features.config import ExtractFeaturesConfig
from components.extract_features.step import run as extract_features
from components.tune_head.config import TuneHeadConfig
from components.tune_head.step import run
from tests.components.conftest import TinyRun

NAMES = ("train_features", "val_select_features")
TRAINING = {"epochs": 2, "global_batch_size": 16, "monitor": "val_select/nll"}
CONFIG = TuneHeadConfig(n_trials=8, n_bootstrap=100, training=TRAINING)


@pytest.fixture(scope="module")
def features(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both artifacts, as the phase before leaves them."""
    out = tmp_path_factory.mktemp("features")
    inputs = {name: tiny.root / name for name in ("dataset", "splits", "backbone")}
    config = ExtractFeaturesConfig(n_processes=1, n_cached_augmentations=2, precision="fp32")
    train, select = (out / name for name in NAMES)
    extract_features(config, **inputs, train_features=train, val_select_features=select)
    return out


def _tune(features: Path, out: Path, config: TuneHeadConfig = CONFIG) -> dict[str, float]:
    train, select = (features / name for name in NAMES)
    return run(
        config,
        train_features=train,
        val_select_features=select,
        tuning=out / "tuning",
        report=out / "report.html",
    )


@pytest.fixture(scope="module")
def tuned(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    out = tmp_path_factory.mktemp("tuned")
    _tune(features, out)
    return out


def test_the_result(tuned: Path) -> None:
    document = json.loads((tuned / "tuning/tuning.json").read_text())
    assert document
