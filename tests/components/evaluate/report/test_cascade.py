"""The cascade counts each image with the decision of the stage that answers it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from components.evaluate.config import EvaluateConfig
from components.evaluate.report.cascade import CascadeReport, Costs
from components.evaluate.step import run
from components.shared.contracts.errors import DataError
from tests.components.evaluate.conftest import N, make_logits

LOGITS = make_logits(gate=False)
TRUTH = LOGITS.labels == 1
DEFERRED = np.abs(LOGITS.margin) < 1  # by the SCRC policy of the inputs
# Stage 2 is right in nine of ten images.
STAGE2 = TRUTH ^ (np.random.default_rng(5).random(N) < 0.1)


def _table(path: Path, rows: np.ndarray) -> str:
    lines = ["sample_id,None,Roadwork"]
    lines += [f"{LOGITS.sample_ids[row]},0,{3 if STAGE2[row] else -3}" for row in rows.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _evaluate(inputs: dict[str, Path], root: Path, **options: Any) -> tuple[dict[str, Any], str]:
    config = EvaluateConfig(n_bootstrap=100, **options)
    run(config, **inputs, evaluation=root / "out", report=root / "report.html")
    document = json.loads((root / "out/eval_report.json").read_text())
    return document, (root / "report.html").read_text()


def test_values_are_those_of_the_combined_decisions(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    table = _table(tmp_path / "two.csv", np.arange(N))
    costs = {"stage1_cost": 0.5, "stage2_cost": 20.0}
    document, html = _evaluate(inputs, tmp_path, policy="scrc", stage2_logits=table, **costs)
    found = document["cascade"]["policies"]["scrc"]

    stage1 = LOGITS.margin > 0
    combined = np.where(DEFERRED, STAGE2, stage1)
    metrics = {name: entry["value"] for name, entry in found["metrics"].items()}
    assert metrics == {
        "accuracy": pytest.approx((combined == TRUTH).mean()),
        "mcc": pytest.approx(matthews_corrcoef(TRUTH, combined)),
        "deferred": pytest.approx(DEFERRED.mean()),
        "stage2_accuracy": pytest.approx((STAGE2 == TRUTH)[DEFERRED].mean()),
        "cost": pytest.approx(0.5 + 20 * DEFERRED.mean()),
    }
    assert all(entry["interval_95"] for entry in found["metrics"].values())
    low, high = found["metrics"]["deferred"]["interval_95"]
    assert found["metrics"]["cost"]["interval_95"] == pytest.approx(
        [0.5 + 20 * low, 0.5 + 20 * high]
    )

    gain = found["minus_stage1"]["accuracy"]
    assert gain["value"] == pytest.approx((combined == TRUTH).mean() - (stage1 == TRUTH).mean())
    assert gain["interval_95"][0] < gain["value"] < gain["interval_95"][1]
    # The metrics of stage 1 stay.
    assert document["metrics"]["exit_rate"]["value"] == pytest.approx(1 - DEFERRED.mean())

    # A policy that always answers has no cascade.
    assert document["cascade"]["policies"].keys() == {"gate", "scrc"}
    assert document["cascade"]["stage2_logits"]["file"] == "two.csv"
    assert "<h2>Cascade</h2>" in html
    assert "Stage 2 answers what a policy defers, by two.csv." in html


def test_rows_are_needed_of_deferred_images_only(inputs: dict[str, Path], tmp_path: Path) -> None:
    only = {name: path for name, path in inputs.items() if not name.startswith("gate")}
    table = _table(tmp_path / "two.csv", np.flatnonzero(DEFERRED))
    document, _ = _evaluate(only, tmp_path, policy="scrc", stage2_logits=table)
    assert document["cascade"]["policies"].keys() == {"scrc"}

    table = _table(tmp_path / "two.csv", np.flatnonzero(DEFERRED)[1:])
    first = LOGITS.sample_ids[np.flatnonzero(DEFERRED)[0]]
    message = (
        rf"has no row for 1 of the {DEFERRED.sum()} images that policy scrc defers, first {first}"
    )
    with pytest.raises(DataError, match=message):
        _evaluate(only, tmp_path / "again", policy="scrc", stage2_logits=table)


def test_without_a_table_there_is_no_section(inputs: dict[str, Path], tmp_path: Path) -> None:
    document, html = _evaluate(inputs, tmp_path)
    assert "cascade" not in document
    assert "<h2>Cascade</h2>" not in html


def test_where_nothing_is_deferred_the_report_says_so(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    only = {name: inputs[name] for name in ("val_test_images", "val_test_logits", "softmax_policy")}
    table = _table(tmp_path / "two.csv", np.arange(1))
    document, html = _evaluate(only, tmp_path, stage2_logits=table)
    expected = CascadeReport("two.csv", "", Costs(0.0, 1.0), ()).to_json()
    assert document["cascade"]["policies"] == expected["policies"] == {}
    assert "No policy defers an image." in html
