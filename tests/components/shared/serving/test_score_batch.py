"""Batch scoring by SCRC-T: its promise in simulation, its command line, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.shared.contracts.errors import ConfigError, DataError, InfeasibleError
from components.shared.policies.logits import Logits
from components.shared.serving.score_batch import score
from components.shared.stats.metrics import sigmoid, softmax
from tests.logits_artifacts import binary_logits, logits_artifact


def _draw(rng: np.random.Generator, count: int, split: str) -> Logits:
    margin = rng.normal(size=count) * 3
    return binary_logits(rng.random(count) < sigmoid(margin / 2), margin, split)


def test_sets_of_accepted_images_miss_the_truth_at_most_alpha() -> None:
    rng = np.random.default_rng(0)
    missed, accepted, images = 0, 0, 0
    for _ in range(25):
        calibration, batch = _draw(rng, 400, "VAL_CALIB"), _draw(rng, 60, "VAL_TEST")
        for document, label in zip(
            score(calibration, batch, coverage=0.7, alpha=0.1, seed=0), batch.labels, strict=True
        ):
            accepted += document["accepted"]
            missed += (
                document["accepted"] and batch.class_names[label] not in document["prediction_set"]
            )
        images += 60
    assert accepted / images == pytest.approx(0.7, abs=0.06)
    assert missed / accepted <= 0.1 + 3 * np.sqrt(0.09 / accepted)


def test_what_cannot_be_scored_is_refused() -> None:
    rng = np.random.default_rng(1)
    calibration, batch = _draw(rng, 20, "VAL_CALIB"), _draw(rng, 5, "VAL_TEST")
    with pytest.raises(InfeasibleError, match=r"alpha=0.01 is below 1 / \d"):
        score(calibration, batch, coverage=0.5, alpha=0.01, seed=0)
    with pytest.raises(ConfigError, match=r"coverage=1\.5 must lie between 0 and 1"):
        score(calibration, batch, coverage=1.5, alpha=0.1, seed=0)
    other = Logits(**{**vars(batch), "class_names": ("a", "b")})
    with pytest.raises(DataError, match="of two models"):
        score(calibration, other, coverage=0.5, alpha=0.3, seed=0)


@pytest.mark.parametrize("n_classes", [3, 5])
def test_sets_of_several_classes_miss_the_truth_at_most_alpha(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    names = tuple(f"sign {k}" for k in range(n_classes))

    def draw(count: int, split: str) -> Logits:
        logits = (rng.normal(size=(count, n_classes)) * 2).astype(np.float32)
        truth = [rng.choice(n_classes, p=row) for row in softmax(logits.astype(np.float64))]
        binary = binary_logits(np.zeros(count), logits[:, 0], split)
        changed = {"class_names": names, "logits": logits, "labels": np.array(truth)}
        return Logits(**{**vars(binary), **changed})

    missed, accepted = 0, 0
    for _ in range(20):
        calibration, batch = draw(300, "VAL_CALIB"), draw(40, "VAL_TEST")
        found = score(calibration, batch, coverage=0.7, alpha=0.2, seed=0)
        for document, label in zip(found, batch.labels, strict=True):
            assert set(document["prediction_set"]) <= set(names)
            accepted += document["accepted"]
            missed += document["accepted"] and names[label] not in document["prediction_set"]
    assert missed / accepted <= 0.2 + 3 * np.sqrt(0.16 / accepted)


def test_the_command_prints_a_line_per_image(tmp_path: Path) -> None:
    calibration = logits_artifact(tmp_path / "calib")
    batch = logits_artifact(tmp_path / "test", split="VAL_TEST")
    command = [
        sys.executable,
        "-m",
        "components.shared.serving.score_batch",
        str(calibration),
        str(batch),
    ]
    done = subprocess.run([*command, "--alpha", "0.2"], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 40
    assert all(line["accepted"] or not line["prediction_set"] for line in lines)
    swapped = [*command[:3], str(batch), str(batch)]
    refused = subprocess.run(swapped, capture_output=True, text=True, check=False)
    assert refused.returncode == 42
    assert "VAL_CALIB" in refused.stderr
