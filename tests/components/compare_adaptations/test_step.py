"""Adaptations are compared fairly, the best is selected, and mixed runs are refused."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.compare_adaptations.config import CompareAdaptationsConfig
from components.compare_adaptations.step import run
from components.shared.contracts.artifacts import verify_dir
from components.shared.contracts.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    LeakageViolationError,
)
from components.shared.stats.metrics import Bools, Floats
from tests.logits_artifacts import TRAINED_ON, candidate, logits_artifact

N = 240
TRUTH: Bools = np.arange(N) % 3 == 0
CONFIG = CompareAdaptationsConfig(modes=("frozen", "lora"), n_bootstrap=400)


def _margin(skill: float) -> Floats:
    """Log-odds that tell the classes apart by `skill`, with the same noise for every skill."""
    noise = np.random.default_rng(0).normal(size=N)
    return np.where(TRUTH, skill, -skill) + noise


def _compare(
    root: Path, config: CompareAdaptationsConfig = CONFIG, modes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run on what `candidate` left; `modes` is the order in which the branches arrive."""
    arrived = modes or config.modes
    run(
        config,
        checkpoints=tuple(root / mode / "checkpoint" for mode in arrived),
        val_select_logits=tuple(root / mode / "logits" for mode in reversed(arrived)),
        checkpoint=root / "checkpoint",
        comparison=root / "comparison",
        table=root / "table.md",
    )
    verify_dir(root / "comparison", "Comparison")
    document: dict[str, Any] = json.loads((root / "comparison/comparison.json").read_text())
    return document


def test_the_best_goes_on_with_its_files_and_the_lineage_of_all(tmp_path: Path) -> None:
    candidate(tmp_path, "frozen", _margin(0.5), TRUTH)
    candidate(tmp_path, "lora", _margin(1.5), TRUTH)
    document = _compare(tmp_path, modes=("lora", "frozen"))  # in whatever order the branches arrive
    manifest = verify_dir(tmp_path / "checkpoint", "Checkpoint")
    assert (tmp_path / "checkpoint/weights").read_text() == "lora"
    assert manifest.summary["best_epoch"] == 3
    verdict = manifest.summary["adaptations"]
    assert (verdict["chosen"], list(verdict["candidates"])) == ("lora", ["frozen", "lora"])
    assert "best val_select/nll" in verdict["because"]
    assert manifest.inputs.items() >= TRAINED_ON.items()
    assert {name for name in manifest.inputs if " " in name} == {
        f"{what} {mode}" for what in ("checkpoint", "val_select_logits") for mode in CONFIG.modes
    }
    assert document["chosen"] == "lora"
    assert (tmp_path / "comparison/comparison.png").stat().st_size > 1000
    table = (tmp_path / "table.md").read_text()
    assert "**lora** is selected" in table
    # The selection is named beside the numbers that it makes look better than they are.
    assert "Selected among 2 on these very images" in table


def test_differences_are_paired_and_those_of_the_values(tmp_path: Path) -> None:
    candidate(tmp_path, "frozen", _margin(0.9), TRUTH)
    candidate(tmp_path, "lora", _margin(1.0), TRUTH)
    rows = {(row["mode"], row["metric"]): row for row in _compare(tmp_path)["rows"]}
    assert len(rows) == 2 * 5
    for metric in ("acc", "mcc", "auroc", "ap", "nll"):
        first, second = (rows[mode, f"val_select/{metric}"] for mode in CONFIG.modes)
        assert "difference" not in first
        assert second["difference"] == pytest.approx(second["value"] - first["value"], abs=1e-12)
        low, high = second["difference_interval_95"]
        assert low <= second["difference"] <= high
        # The noise is common to both, so that a difference is known far better than the values are.
        assert high - low < 0.5 * (second["interval_95"][1] - second["interval_95"][0])
    low, high = rows["lora", "val_select/auroc"]["difference_interval_95"]
    assert low > 0
    with (tmp_path / "comparison/comparison.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["value"]) for row in table] == [row["value"] for row in rows.values()]


def test_ties_go_to_the_earlier_mode(tmp_path: Path) -> None:
    for mode in CONFIG.modes:
        candidate(tmp_path, mode, _margin(1.0), TRUTH)
    assert _compare(tmp_path)["chosen"] == "frozen"
    turned = CompareAdaptationsConfig(modes=("lora", "frozen"), n_bootstrap=100)
    assert _compare(tmp_path, turned)["chosen"] == "lora"


def test_the_monitored_metric_decides(tmp_path: Path) -> None:
    candidate(tmp_path, "frozen", _margin(1.0), TRUTH)
    candidate(tmp_path, "lora", _margin(1.5) + 3, TRUTH)  # ranks better, decides worse
    assert _compare(tmp_path)["chosen"] == "frozen"  # of which the NLL is smaller
    auroc = CompareAdaptationsConfig(
        modes=CONFIG.modes, monitor="val_select/auroc", n_bootstrap=100
    )
    assert _compare(tmp_path, auroc)["chosen"] == "lora"


def test_one_mode_is_compared_with_nothing(tmp_path: Path) -> None:
    candidate(tmp_path, "full", _margin(1.0), TRUTH)
    document = _compare(tmp_path, CompareAdaptationsConfig(modes=("full",), n_bootstrap=100))
    assert (document["chosen"], len(document["rows"])) == ("full", 5)
    assert document["notes"] == []


def test_candidates_of_other_data_or_other_trainings_are_refused(tmp_path: Path) -> None:
    candidate(tmp_path, "frozen", _margin(1.0), TRUTH)
    candidate(tmp_path, "lora", _margin(1.0), TRUTH, TRAINED_ON | {"splits": "t" * 64})
    with pytest.raises(
        ArtifactError, match="modes 'frozen' and 'lora' were trained on different data"
    ):
        _compare(tmp_path)
    with pytest.raises(
        ArtifactError, match=r"checkpoints are of modes \['frozen', 'frozen'\], expected"
    ):
        _compare(tmp_path, modes=("frozen", "frozen"))
    assert not (tmp_path / "checkpoint").exists()


def test_features_that_frozen_training_alone_reads_are_no_other_data(tmp_path: Path) -> None:
    candidate(tmp_path, "frozen", _margin(1.0), TRUTH, TRAINED_ON | {"train_features": "f" * 64})
    candidate(tmp_path, "lora", _margin(2.0), TRUTH)
    assert _compare(tmp_path)["chosen"] in ("frozen", "lora")


def test_logits_of_another_split_never_choose(tmp_path: Path) -> None:
    candidate(tmp_path, "frozen", _margin(1.0), TRUTH)
    stolen = logits_artifact(tmp_path / "stolen", split="VAL_TEST")
    with pytest.raises(
        LeakageViolationError, match="holds split 'VAL_TEST', this step may only see 'VAL_SELECT'"
    ):
        run(
            CompareAdaptationsConfig(modes=("frozen",)),
            checkpoints=(tmp_path / "frozen/checkpoint",),
            val_select_logits=(stolen,),
            checkpoint=tmp_path / "checkpoint",
            comparison=tmp_path / "comparison",
            table=tmp_path / "table.md",
        )


def test_a_split_without_a_class_cannot_choose(tmp_path: Path) -> None:
    candidate(tmp_path, "full", _margin(1.0), np.zeros(N, dtype=bool))
    with pytest.raises(DataError, match="VAL_SELECT has 240 of 'None', 0 of 'Roadwork'"):
        _compare(tmp_path, CompareAdaptationsConfig(modes=("full",)))
    with pytest.raises(ConfigError, match="must be a non-empty list without duplicates"):
        CompareAdaptationsConfig(modes=())
