"""The process of a step's container: kfp's executor on the code of the command, with settings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.container import COMMAND, read_settings
from pipelines.sources import ROOT

_CODE = '''"""Say what a step finds."""
import os


def told(name: str, value: str) -> None:
    print(name, repr(value), os.environ["_KFP_RUNTIME"])
    open(os.environ["FOUND"], "w").write(__file__)
'''


def test_the_code_of_the_command_gets_its_inputs_and_leaves_nothing(tmp_path: Path) -> None:
    """A value keeps what a shell would change."""
    value = "a 'b' \"c\" $(touch x) {{$}}"
    inputs = {
        "inputs": {"parameterValues": {"name": "said", "value": value}},
        "outputs": {"outputFile": str(tmp_path / "output.json")},
    }
    given = ["--executor_input", json.dumps(inputs), "--function_to_execute", "told"]
    done = subprocess.run(
        [sys.executable, *COMMAND[1:], _CODE, *given],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FOUND": str(tmp_path / "found")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"said {value!r} true" in done.stdout
    assert not Path((tmp_path / "found").read_text()).exists()


def test_settings_become_variables_that_the_environment_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted ConfigMap: links into a hidden folder."""
    hidden = tmp_path / "..2026"
    hidden.mkdir()
    for name, text in (("STREETVISION_S3_ENDPOINT", "s3:9000"), ("STREETVISION_S3_REGION", "eu")):
        (hidden / name).write_text(text)
        (tmp_path / name).symlink_to(hidden / name)
    (tmp_path / "other").write_text("no setting")
    monkeypatch.setattr(os, "environ", {"STREETVISION_S3_REGION": "us"})

    read_settings(tmp_path)
    assert os.environ == {"STREETVISION_S3_ENDPOINT": "s3:9000", "STREETVISION_S3_REGION": "us"}


def test_a_step_without_settings_starts(tmp_path: Path) -> None:
    read_settings(tmp_path / "absent")
