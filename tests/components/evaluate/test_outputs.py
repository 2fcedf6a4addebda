"""Files of the Evaluation artifact agree with each other."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from components.evaluate.config import EvaluateConfig
from components.evaluate.outputs import _write_hard_examples
from components.evaluate.report.report import HardExample
from components.evaluate.step import run
from components.shared.data.val_test_images import encode_thumbnail
from pipelines.sources import ROOT
from tests.components.evaluate.conftest import make_logits


@pytest.fixture
def evaluation(inputs: dict[str, Path], tmp_path: Path) -> Path:
    config = EvaluateConfig(n_bootstrap=100, n_hard_examples=5)
    run(config, **inputs, evaluation=tmp_path / "out", report=tmp_path / "report.html")
    return tmp_path / "out"


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_table_of_metrics_is_that_of_the_document(evaluation: Path) -> None:
    document = json.loads((evaluation / "eval_report.json").read_text())
    rows = {row["metric"]: row for row in _rows(evaluation / "metrics.csv")}
    assert rows.keys() == document["metrics"].keys()
    for name, entry in document["metrics"].items():
        assert rows[name]["value"] == ("" if entry["value"] is None else str(entry["value"]))


def test_hard_examples_are_the_most_confident_errors(evaluation: Path) -> None:
    logits = make_logits(gate=False)
    wrong = (logits.margin > 0) != (logits.labels == 1)
    worst = sorted(abs(logits.margin[wrong]), reverse=True)[:5]
    rows = _rows(evaluation / "hard_examples.csv")
    assert [float(row["confidence"]) for row in rows] == pytest.approx(worst, abs=1e-6)
    assert all(float(row["probability"]) > 0.5 > float(row["probability_of_label"]) for row in rows)
    assert all({row["label"], row["decision"]} == {"None", "Roadwork"} for row in rows)
    html = (evaluation / "report.html").read_text()
    assert all(row["sample_id"] in html for row in rows)


def test_hard_examples_hold_no_formula_and_no_escape_sequence(tmp_path: Path) -> None:
    example = HardExample(
        sample_id="0" * 16,
        source="photos",
        path="\x1b[31m0.jpg",
        group="=cmd|'/c calc'!A0",
        label="None",
        decision="Roadwork",
        probability=0.9,
        probability_of_label=0.1,
        confidence=-0.5,
        error="false alarm",
        thumbnail=encode_thumbnail(np.zeros((4, 4, 3), dtype=np.uint8)),
    )
    _write_hard_examples(tmp_path / "hard_examples.csv", [example])
    (row,) = _rows(tmp_path / "hard_examples.csv")
    assert (row["path"], row["group"]) == (r"\x1b[31m0.jpg", "'=cmd|'/c calc'!A0")
    assert row["confidence"] == "-0.500000"


def test_the_confusion_matrix_counts_every_image(evaluation: Path) -> None:
    confusion = json.loads((evaluation / "confusion.json").read_text())
    document = json.loads((evaluation / "eval_report.json").read_text())
    (tn, fp), (fn, tp) = confusion["matrix"]
    assert confusion["labels"] == ["None", "Roadwork"]
    assert tn + fp + fn + tp == document["n_samples"]
    assert fn + tp == document["n_positive"]
    assert document["metrics"]["accuracy"]["value"] == pytest.approx((tn + tp) / 200)


def test_optional_sections_are_absent_without_their_inputs(evaluation: Path) -> None:
    document = json.loads((evaluation / "eval_report.json").read_text())
    assert not {"robustness", "student", "early_exit"} & document.keys()


def test_every_class_is_a_row(evaluation: Path) -> None:
    document = json.loads((evaluation / "eval_report.json").read_text())
    rows = {row["class"]: row for row in _rows(evaluation / "per_class.csv")}
    assert list(rows) == document["outcomes"] == ["None", "Roadwork"]
    for name, row in rows.items():
        entry = document["classes"][name]
        assert int(row["n_images"]) == entry["n_images"] == document["n_per_outcome"][name]
        for metric, found in entry["metrics"].items():
            assert float(row[metric]) == found["value"]
        assert float(row["recall_low_95"]) == entry["metrics"]["recall"]["interval_95"][0]
        assert float(row["ece_calibrated_95"]) == entry["metrics"]["ece"]["calibrated_95"][1]


def test_every_key_of_the_report_is_documented(evaluation: Path) -> None:
    document = json.loads((evaluation / "eval_report.json").read_text())
    page = (ROOT / "docs/reference/artifacts.md").read_text(encoding="utf-8")
    described = page[page.index("## eval_report.json") :]
    optional = {"robustness", "student", "early_exit"}
    policy = document["policies"]["scrc"]
    keys = {*document, *optional, *policy, *policy["guarantees"][0], *document["classes"]["None"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in described] == []
