"""The pipelines that search: their graphs, and that a search over heads is given two splits."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.contracts.errors import ConfigError
from pipelines.graph import steps_of
from pipelines.names import PIPELINES, TUNE, TUNE_TRAINING
from pipelines.package import write_package
from pipelines.parameters import Variant, validated
from pipelines.resources import load_profile

DATA_STEPS = ["configure", "import-backbone", "ingest-dataset", "split-dataset"]


def _compiled(pipeline: str, folder: Path) -> dict[str, Any]:
    file = folder / f"{pipeline}.yaml"
    write_package(file, load_profile("cpu"), Variant(pipeline=pipeline))
    return dict(next(yaml.safe_load_all(file.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("pipeline", "more"),
    [(TUNE, ["extract-features", "tune-head"]), (TUNE_TRAINING, ["tune-training"])],
)
def test_the_steps(pipeline: str, more: list[str], tmp_path: Path) -> None:
    spec = _compiled(pipeline, tmp_path)
    assert sorted(steps_of(spec)) == sorted(DATA_STEPS + more)
    assert spec["pipelineInfo"]["name"] == PIPELINES[pipeline]
    assert set(spec["root"]["outputDefinitions"]["artifacts"]) == {"tuning", "report"}


def test_a_search_over_heads_is_given_the_features_of_two_splits(tmp_path: Path) -> None:
    spec = _compiled(TUNE, tmp_path)
    inputs = spec["components"]["comp-tune-head"]["inputDefinitions"]["artifacts"]
    assert {name: entry["artifactType"]["schemaTitle"] for name, entry in inputs.items()} == {
        "train_features": "system.TrainFeatures",
        "val_select_features": "system.ValSelectFeatures",
    }


@pytest.mark.parametrize(
    ("pipeline", "mode", "says"),
    [
        (TUNE, "lora", "mode='lora' trains the backbone, so that no head learns from stored"),
        (TUNE_TRAINING, "frozen", "mode='frozen' trains the head alone; use --search head"),
    ],
)
def test_a_mode_that_has_no_such_search_is_refused(pipeline: str, mode: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        validated({"mode": mode}, Variant(pipeline=pipeline))
