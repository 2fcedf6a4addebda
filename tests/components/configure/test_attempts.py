"""Which attempt at its guarantees a run is."""

from pathlib import Path
from typing import Any

import pytest

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.configure.config import ConfigureConfig
from components.configure.step import configured, run
from components.fit_threshold.config import FitThresholdConfig
from components.shared.contracts.environment import Variable
from tests.model_folder import write_model_folder


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record attempts below the test's folder; the data and the backbone are one file each."""
    monkeypatch.setenv(Variable.LINEAGES, str(tmp_path / "lineages"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("x", encoding="utf-8")
    write_model_folder(tmp_path / "backbone")


def _attempts(**overrides: Any) -> tuple[int, int, int]:
    """Start a run; return its attempts at the guarantees of threshold, gate and SCRC."""
    config = ConfigureConfig(data="data", backbone="backbone", overrides=overrides)
    configs = run(config)._asdict()
    return (
        FitThresholdConfig.from_mapping(configs["fit_threshold"]).attempt,
        CalibrateGateConfig.from_mapping(configs["calibrate_gate"]).attempt,
        CalibrateScrcConfig.from_mapping(configs["calibrate_scrc"]).attempt,
    )


def test_another_seed_is_another_attempt_and_the_same_run_is_not() -> None:
    assert _attempts() == (0, 1, 1)
    assert _attempts(**{"train_baseline.seed": 1}) == (0, 2, 2)
    assert _attempts(**{"train_gate.epochs": 1}) == (0, 3, 3)
    assert _attempts(**{"calibrate_scrc.seed": 1}) == (0, 1, 4)
    assert _attempts() == (0, 1, 1)


def test_another_target_and_other_data_are_counted_on_their_own(tmp_path: Path) -> None:
    assert _attempts() == (0, 1, 1)
    assert _attempts(alpha=0.2) == (0, 1, 1)
    assert _attempts(class_wise=True) == (0, 1, 1)

    assert _attempts(max_fnr=0.2, max_fnr_delta=0.1)[0] == 1
    assert _attempts(max_fnr=0.2, max_fnr_delta=0.1, objective="f1")[0] == 2

    (tmp_path / "data" / "more").write_text("x", encoding="utf-8")
    assert _attempts(**{"train_baseline.seed": 5}) == (0, 1, 1)


def test_what_cannot_change_a_guarantee_is_no_attempt() -> None:
    assert _attempts() == (0, 1, 1)
    assert _attempts(policy="scrc", model_name="x") == (0, 1, 1)


def test_a_check_before_a_run_counts_nothing(tmp_path: Path) -> None:
    configured(ConfigureConfig(data="data", backbone="backbone"))

    assert not (tmp_path / "lineages").exists()
    assert _attempts() == (0, 1, 1)
