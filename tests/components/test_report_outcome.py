"""The exit handler's step."""

import json
from pathlib import Path

import pytest

from components.report_outcome.config import OutcomeConfig
from components.report_outcome.step import run


@pytest.mark.parametrize(
    ("given", "state", "error"),
    [
        ({"state": "SUCCEEDED"}, "succeeded", None),
        ({"state": "CANCELLED"}, "cancelled", None),
        (
            {"state": "FAILED", "error_code": 9, "error_message": "The DAG failed.\n Failed tasks: [train-baseline]"},
            "failed",
            {"code": 9, "message": "The DAG failed. Failed tasks: [train-baseline]"},
        ),
    ],
)
def test_the_outcome_is_written_and_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict[str, object], state: str, error: object
) -> None:
    assert run(OutcomeConfig.from_mapping({**given, "run": "run-7"}), outcome=tmp_path / "deep/outcome") == state
    document = json.loads((tmp_path / "deep/outcome").read_text())
    assert (document["run"], document["state"], document.get("error")) == ("run-7", state, error)
    line = capsys.readouterr().out
    assert line.startswith(f"run run-7 {state}")
    assert line.count("\n") == 1
