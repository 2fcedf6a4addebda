"""A search over heads ends with the same best after it was killed, and reads two splits alone."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components.configure.config import ConfigureConfig
from components.configure.resolve import resolve
from components.extract_features.config import ExtractFeaturesConfig
from components.extract_features.step import run as extract_features
from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError, ConfigError, LeakageViolationError
from components.shared.contracts.step import path_parameters
from components.tune_head.config import TuneHeadConfig
from components.tune_head.step import run
from tests.components.conftest import TinyRun
from tests.golden.make import FOLDER

NAMES = ("train_features", "val_select_features")
TRAINING = {"epochs": 2, "global_batch_size": 16}
CONFIG = TuneHeadConfig(n_trials=6, n_bootstrap=100, training=TRAINING)


@pytest.fixture(scope="module")
def features(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both artifacts, as the phase before leaves them."""
    out = tmp_path_factory.mktemp("features")
    inputs = {name: tiny.root / name for name in ("dataset", "splits", "backbone")}
    config = ExtractFeaturesConfig(n_processes=1, n_cached_augmentations=2, precision="fp32")
    train, select = (out / name for name in NAMES)
    extract_features(config, **inputs, train_features=train, val_select_features=select)
    return out


def _paths(features: Path, out: Path) -> dict[str, Path]:
    inputs = {name: features / name for name in NAMES}
    return inputs | {"tuning": out / "tuning", "report": out / "report.html"}


@pytest.fixture(scope="module")
def tuned(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    out = tmp_path_factory.mktemp("tuned")
    run(CONFIG, **_paths(features, out))
    return out


def _found(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "tuning/tuning.json").read_text()))


def test_the_best_of_the_trials_becomes_a_recipe(tuned: Path) -> None:
    found = _found(tuned)
    assert [trial["number"] for trial in found["trials"]] == list(range(6))
    values = [-trial["value"] for trial in found["trials"]]
    assert found["best"] == pytest.approx(min(values))
    assert found["default"] == pytest.approx(values[0])
    assert found["trials"][0]["options"]["learning_rate"] == 1e-3
    assert found["trials"][0]["options"]["global_batch_size"] == 16
    assert found["optimism"] == pytest.approx(found["best"] - found["corrected"])
    assert sum(found["importance"].values()) == pytest.approx(1)

    recipe = yaml.safe_load((tuned / "tuning/best.yaml").read_text())
    best = found["trials"][found["best_trial"]]["options"]
    assert recipe == {"train_baseline": {"epochs": 2, **best}}
    form = ConfigureConfig(data="d", backbone="b", overrides=recipe)
    resolved = resolve(form)["train_baseline"].to_json()
    assert {name: resolved[name] for name in best} == best

    with (tuned / "tuning/trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["val_select/nll"]) for row in rows] == pytest.approx(values)
    page = (tuned / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "The best of many flatters itself" in page


def test_its_inputs_hold_two_splits_and_nothing_of_the_others(features: Path) -> None:
    inputs = [name for name, role in path_parameters(run).items() if role.startswith("input")]
    assert inputs == list(NAMES)
    splits = [read_manifest(features / name).split for name in NAMES]
    assert splits == ["TRAIN", "VAL_SELECT"]


def _killed_after(job: Path, environment: dict[str, str], checkpoints: Path, n_trials: int) -> None:
    """Start the step, and kill it and its process of trials after some of these."""
    command = [sys.executable, "-m", "components.tune_head.step", str(job)]
    process = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(checkpoints.glob("*/parts/trial-*/manifest.json"))) < n_trials:
            assert process.poll() is None, "the search has ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_bytes(
    features: Path, tuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = tmp_path / "checkpoints"
    job, paths = tmp_path / "job.json", _paths(features, tmp_path)
    config = CONFIG.to_json()
    job.write_text(json.dumps({"config": config, "paths": {k: str(v) for k, v in paths.items()}}))
    environment = os.environ | {Variable.CHECKPOINTS: str(checkpoints)}
    _killed_after(job, environment, checkpoints, 2)
    assert not (tmp_path / "tuning").exists()

    subprocess.run(
        [sys.executable, "-m", "components.tune_head.step", str(job)], env=environment, check=True
    )

    assert "of 6 trials are finished; the search goes on" in capfd.readouterr().out
    digests = [read_manifest(out / "tuning").content_digest for out in (tuned, tmp_path)]
    assert digests[0] == digests[1]
    assert not list(checkpoints.glob("*/parts"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "lora"}, "mode='lora' trains the backbone; use mode=frozen"),
        ({"dropout": 2}, "training.dropout=2"),
        ({"no_such": 1}, "training.unknown key 'no_such'"),
    ],
)
def test_a_training_that_is_none_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        TuneHeadConfig(training=options)


def test_features_that_no_head_can_learn_from_are_refused(features: Path, tmp_path: Path) -> None:
    old = {name: FOLDER / name for name in NAMES}
    with pytest.raises(ArtifactError, match="has no labels: it is empty, or of an earlier version"):
        run(CONFIG, **(_paths(features, tmp_path) | old))

    swapped = dict(zip(NAMES, reversed([features / name for name in NAMES]), strict=True))
    with pytest.raises(LeakageViolationError):
        run(CONFIG, **(_paths(features, tmp_path) | swapped))

    tiles = dataclasses.replace(CONFIG, training=TRAINING | {"tile_grid": 2})
    with pytest.raises(ArtifactError, match="the features are of 1 views, the training has 5"):
        run(tiles, **_paths(features, tmp_path))


def test_labels_are_those_of_the_dataset(tiny: TinyRun, features: Path) -> None:
    from components.shared.data.dataset import Dataset
    from components.shared.data.features import open_features, read_labels

    data = Dataset.open(tiny.dataset)
    found, _ = open_features(features / "train_features", "TRAIN")
    labels = read_labels(features / "train_features", found)
    samples = [data.samples[data.index[sample_id]] for sample_id in found.sample_ids]
    assert labels.class_names == data.class_names
    assert labels.labels.tolist() == [sample.label for sample in samples]
    names = np.array([sample.group for sample in samples])
    assert len(set(zip(labels.groups.tolist(), names.tolist(), strict=True))) == len(set(names))
