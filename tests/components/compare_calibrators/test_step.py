"""The comparison of calibrators as a step: what it writes, what it refuses."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.compare_calibrators.config import CompareCalibratorsConfig
from components.compare_calibrators.step import run
from components.shared.calibration import registry
from components.shared.calibration.artifact import read_calibrator
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import sha256_file, verify_dir, writing
from components.shared.contracts.errors import ConfigError, DataError, LeakageViolationError
from components.shared.policies.logits import read_logits, write_logits
from components.shared.stats.metrics import Bools, Floats, sigmoid, softmax
from tests.logits_artifacts import binary_logits, logits_artifact

CONFIG = CompareCalibratorsConfig(n_bootstrap=100)


def _samples(count: int = 600) -> tuple[Bools, Floats]:
    rng = np.random.default_rng(0)
    margin = rng.normal(size=count) * 3
    return rng.random(count) < sigmoid(margin / 2), margin


def test_it_writes_the_chosen_calibrator_and_the_whole_table(tmp_path: Path) -> None:
    logits = logits_artifact(tmp_path / "logits", *_samples())
    for name in ("calibration", "again"):
        run(CONFIG, val_calib_logits=logits, calibration=tmp_path / name)
    out = tmp_path / "calibration"
    files = verify_dir(out, "Calibration").files
    assert [sha256_file(out / f) for f in files] == [
        sha256_file(tmp_path / "again" / f) for f in files
    ]
    document = json.loads((out / "comparison.json").read_text())
    assert document["chosen"] == document["best_by_rule"] == "temperature"
    fitted = registry.parse(json.loads((out / "calibrator.json").read_text()), "calibrator.json")
    assert fitted.to_json()["temperature"] == pytest.approx(2, abs=0.4)
    with (out / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 7
    nll = {row["calibrator"]: float(row["value"]) for row in rows if row["metric"] == "nll"}
    assert nll["temperature"] < nll["uncalibrated"]
    for row in rows:
        if row["metric"] in ("nll", "brier"):
            assert float(row["low_95"]) < float(row["value"]) < float(row["high_95"])
        else:
            assert (row["low_95"], row["high_95"]) == ("", "")
            assert float(row["calibrated_95"]) > 0


def test_a_calibrator_may_be_asked_for_by_name(tmp_path: Path) -> None:
    config = CompareCalibratorsConfig(n_bootstrap=100, calibrator="vector")
    run(
        config,
        val_calib_logits=logits_artifact(tmp_path / "logits", *_samples()),
        calibration=tmp_path / "out",
    )
    document = json.loads((tmp_path / "out/comparison.json").read_text())
    assert (document["chosen"], document["best_by_rule"]) == ("vector", "temperature")


def test_bad_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="calibrator='magic' must be one of auto, temperature"):
        CompareCalibratorsConfig(calibrator="magic")
    test = logits_artifact(tmp_path / "test", split="VAL_TEST")
    with pytest.raises(LeakageViolationError):
        run(CONFIG, val_calib_logits=test, calibration=tmp_path / "out")
    config = CompareCalibratorsConfig(positive_class="Works")
    with pytest.raises(DataError, match="positive_class='Works' is not in"):
        run(config, val_calib_logits=logits_artifact(tmp_path / "x"), calibration=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_allow_no_calibrator_are_written_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class of no samples, or of one group, ended the run before."""
    logits = logits_artifact(tmp_path / "one", np.ones(40, bool), np.arange(40.0))
    run(CONFIG, val_calib_logits=logits, calibration=tmp_path / "out")
    calibrator, _ = read_calibrator(tmp_path / "out", read_logits(logits, "VAL_CALIB")[1])
    assert calibrator is None
    document = json.loads((tmp_path / "out/comparison.json").read_text())
    assert document["chosen"] == "uncalibrated"
    assert document["reason"].startswith("temperature: class(es) 'None' have no samples; use more")
    assert "no calibrator (temperature: class(es) 'None' have" in capsys.readouterr().out
    assert document["calibrators"]["platt"]["metrics"] == {}


@pytest.mark.parametrize(
    ("task", "positive_class", "last"),
    [("auto", "auto", "ece_classwise"), ("binary", "sign 2", "ece_positive_class")],
)
def test_several_classes_are_judged_as_the_task_says(
    tmp_path: Path, task: str, positive_class: str, last: str
) -> None:
    rng = np.random.default_rng(0)
    margin = 2 * rng.normal(size=(600, 4))
    labels = (rng.random(600)[:, None] > np.cumsum(softmax(margin), axis=1)).sum(axis=1)
    binary = binary_logits(labels > 0, margin[:, 0], "VAL_CALIB")
    names = tuple(f"sign {k}" for k in range(4))
    logits = replace(
        binary, class_names=names, labels=labels, logits=(2 * margin).astype(np.float32)
    )
    kind = Kind.logits_of("VAL_CALIB")
    with writing(
        tmp_path / "logits", kind=kind, step="test", config=CONFIG, split="VAL_CALIB"
    ) as out:
        write_logits(out, logits)

    config = CompareCalibratorsConfig.from_mapping(
        {"n_bootstrap": 100, "task": task, "positive_class": positive_class}
    )
    run(config, val_calib_logits=tmp_path / "logits", calibration=tmp_path / "out")
    document = json.loads((tmp_path / "out/comparison.json").read_text())
    assert document["chosen"] == "temperature"
    for row in document["calibrators"].values():
        assert set(row["metrics"]) == {"nll", "brier", "ece_top_label", last}
