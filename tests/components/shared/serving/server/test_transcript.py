"""The transcript of docs/guides/server.md, executed: each command, and the form of its answer."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.sources import ROOT
from tests.bundles import onnx_bundle
from tests.serving_server import Process

GUIDE = ROOT / "docs/guides/server.md"


def _transcript() -> list[tuple[str, list[str]]]:
    """Commands of the guide with the lines that it shows under each."""
    (block,) = re.findall(r"```console\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def _form(line: str) -> Any:
    """What of an answer does not depend on the bundle: names, errors, and kinds of values."""
    try:
        return _kinds(json.loads(line))
    except ValueError:
        return line


def _kinds(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _kinds(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [_kinds(part) for part in value]
    if isinstance(value, str) and value.startswith("{"):
        return _form(value)
    if name in ("decision", "image") and value != "photo.jpg":
        return type(value).__name__
    return type(value).__name__ if isinstance(value, int | float) else value


def test_the_transcript_is_what_the_server_answers(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    Image.new("RGB", (64, 48), (200, 120, 40)).save(tmp_path / "photo.jpg")
    transcript = _transcript()
    assert len(transcript) >= 7

    with Process(onnx_bundle(tmp_path_factory)) as process:
        for command, expected in transcript:
            ran = subprocess.run(
                ["bash", "-c", command.replace("http://localhost:8080", process.url)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            found = ran.stdout.splitlines()
            assert [_form(line) for line in found] == [_form(line) for line in expected], command
