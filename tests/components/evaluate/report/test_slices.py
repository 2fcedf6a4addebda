"""A model that is bad at night is found out; slices that cannot be judged say why."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.evaluate.config import EvaluateConfig
from components.evaluate.report.slices import RANKED_BY
from components.evaluate.step import run
from components.shared.contracts.errors import ConfigError
from tests.bundles import write_dataset, write_test_images
from tests.components.evaluate.conftest import N, make_logits, store_logits
from tests.golden.make import EVALUATED, FOLDER

GROUPS = np.arange(N) // 2  # 100 groups of 2, as in make_logits
# 60 groups by day, 30 at night, 10 at dusk, of which nothing can be said.
LIGHT = np.array(["day", "night", "dusk"])[np.digitize(GROUPS, [60, 90])]


def _wrong_at_night() -> Any:
    logits = make_logits(gate=False)
    truth, night = logits.labels == 1, LIGHT == "night"
    rng = np.random.default_rng(1)
    wrong = np.where(night, rng.random(N) < 0.5, rng.random(N) < 0.05)
    margin = np.where(truth ^ wrong, 1.0, -1.0) * rng.uniform(0.2, 3, N)
    logits.logits[:, 0], logits.logits[:, 1] = 0, margin
    return logits, wrong


@pytest.fixture
def at_night(inputs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Inputs with a model that errs at night, and a column of light."""
    attributes = [
        {"light": str(light), "frame": f"f{row}", "lens": "wide"} for row, light in enumerate(LIGHT)
    ]
    write_dataset(tmp_path / "recorded", ("None", "Roadwork"), N, attributes=attributes)
    write_test_images(tmp_path / "images", tmp_path / "recorded")
    logits, _ = _wrong_at_night()
    return {
        "softmax_policy": inputs["softmax_policy"],
        "scrc_policy": inputs["scrc_policy"],
        "val_test_images": tmp_path / "images",
        "val_test_logits": store_logits(tmp_path / "night", logits),
    }


def _slices(inputs: dict[str, Path], root: Path, **options: Any) -> tuple[dict[str, Any], str]:
    config = EvaluateConfig(n_bootstrap=100, **options)
    run(config, **inputs, evaluation=root / "out", report=root / "report.html")
    document = json.loads((root / "out/eval_report.json").read_text())
    return document["slices"], (root / "report.html").read_text()


def test_the_worst_slice_comes_first_and_the_small_one_last(
    at_night: dict[str, Path], tmp_path: Path
) -> None:
    found, html = _slices(at_night, tmp_path, policy="scrc")
    assert (found["policy"], found["n_compared"]) == ("scrc", 2)
    assert [entry["value"] for entry in found["slices"]] == ["night", "day", "dusk"]
    night, day, dusk = found["slices"]

    _, wrong = _wrong_at_night()
    assert night["metrics"][RANKED_BY]["value"] == pytest.approx(1 - wrong[LIGHT == "night"].mean())
    rest = 1 - wrong[LIGHT != "night"].mean()
    assert night["accuracy_minus_rest"]["value"] == pytest.approx(
        night["metrics"][RANKED_BY]["value"] - rest
    )
    assert night["worse"]
    assert night["accuracy_minus_rest"]["interval_95"][1] < 0
    assert not day["worse"]
    assert (dusk["n_images"], dusk["n_groups"]) == (20, 10)
    assert dusk["metrics"][RANKED_BY]["reason"] == "too few groups: 10, an interval needs 16"
    assert night["metrics"].keys() == {"accuracy", "mcc", "exit_rate", "exit_error"}

    assert "light: night" in html
    assert '<span class="tag">worse</span>' in html
    assert "<b>1</b> of 2 slices with enough groups is worse than the rest" in html
    assert "<small>too few groups</small>" in html


def test_a_policy_that_always_answers_has_no_columns_of_answers(
    at_night: dict[str, Path], tmp_path: Path
) -> None:
    found, html = _slices(at_night, tmp_path)
    assert found["slices"][0]["metrics"].keys() == {"accuracy", "mcc"}
    assert "error among answered</th>" not in html


def test_a_slice_of_one_class_has_no_mcc(at_night: dict[str, Path], tmp_path: Path) -> None:
    labels = make_logits(gate=False).labels
    attributes = [{"label": str(label)} for label in labels]
    write_dataset(tmp_path / "classes", ("None", "Roadwork"), N, attributes=attributes)
    write_test_images(tmp_path / "of_classes", tmp_path / "classes")
    changed = at_night | {"val_test_images": tmp_path / "of_classes"}
    found, html = _slices(changed, tmp_path, slices=["attribute:label"])
    for entry in found["slices"]:
        assert entry["metrics"]["mcc"] == {
            "value": None,
            "interval_95": None,
            "reason": "one class: all images are of one",
        }
    assert "<small>one class</small>" in html


def test_columns_are_chosen_by_name(at_night: dict[str, Path], tmp_path: Path) -> None:
    found, _ = _slices(at_night, tmp_path, slices=["lens"])
    (everything,) = found["slices"]
    assert everything["value"] == "wide"
    assert everything["accuracy_minus_rest"]["reason"] == "all samples have this value"

    none, html = _slices(at_night, tmp_path / "none", slices=[])
    assert none["slices"] == []
    assert "<h2>Slices</h2>" not in html


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lihgt", "slices names 'lihgt', which is no column of the samples; there are 'source',"),
        ("frame", "slices names 'frame', which has 200 values that are not all numbers"),
    ],
)
def test_a_column_that_is_none_is_refused(
    at_night: dict[str, Path], tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _slices(at_night, tmp_path, slices=[name])


def test_artifacts_of_former_versions_have_no_slices(tmp_path: Path) -> None:
    found, _ = _slices({name: FOLDER / name for name in EVALUATED}, tmp_path, alpha=0.75)
    assert found["slices"] == []
