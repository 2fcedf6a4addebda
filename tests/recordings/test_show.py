"""The script that prints what the verbs say of the recordings."""

import subprocess
import sys

import pytest

from pipelines.sources import ROOT
from tests.recordings.replay import recorded_runs


@pytest.mark.slow
def test_every_recorded_run_is_shown() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tests.recordings.show"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for mode in ("api", "api-multi-user"):
        for name in recorded_runs(mode):
            assert f"### {mode}/{name}.json" in shown
    assert "Traceback" not in shown
    assert shown.count("(exit code 124)") == 3  # the recorded runs that had not ended
