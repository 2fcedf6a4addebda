"""The report of an evaluation: what readers use of it is checked, whichever version wrote it."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.errors import ArtifactError
from components.shared.policies.evaluation_report import read_report
from tests.golden.make import FOLDER


def _golden() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "evaluation/eval_report.json").read_bytes())
    return document


def test_a_report_of_a_released_schema_is_read() -> None:
    assert read_report(FOLDER / "evaluation") == _golden()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": []}, "metrics: "),
        ({"metrics": {"auroc": 0.5}}, "metrics.auroc: "),
        ({"metrics": {"auroc": {"value": "0.5", "interval_95": None}}}, "metrics.auroc.value: "),
        ({"metrics": {"auroc": {"value": 0.5, "interval_95": [1.0]}}}, "interval_95"),
        ({"metrics": {"auroc": {"value": 0.5}}}, "interval_95: "),
        ({"policy": None}, "policy: "),
        ({"policies": {"gate": 5}}, "policies.gate: "),
        ({"policies": {"gate": {"guarantees": 5}}}, "policies.gate.guarantees: "),
        ({"student": 5}, "student: "),
        ({"n_groups": 1.5}, "n_groups: "),
    ],
)
def test_a_malformed_report_is_one_typed_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "eval_report.json").write_text(json.dumps(_golden() | changes))
    with pytest.raises(ArtifactError) as caught:
        read_report(tmp_path)
    assert message in str(caught.value)


def test_a_report_of_other_bytes_is_one_typed_line(tmp_path: Path) -> None:
    for data in (b"", b"[]", b"{}", b"\xff", b"[" * 100_000):
        (tmp_path / "eval_report.json").write_bytes(data)
        with pytest.raises(ArtifactError, match=r"eval_report\.json: "):
            read_report(tmp_path)
