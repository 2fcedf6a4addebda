"""The verbs `export triton` and `export tensorrt`: they write a folder or, if not able, nothing."""

import json
import sys
from pathlib import Path

import pytest

from pipelines.cli.app import main
from pipelines.sources import ROOT
from tests.bundles import onnx_bundle

WITHOUT_ONNX = str(ROOT / "tests/golden/schema1/bundle")


def _code(*arguments: str, target: str = "triton") -> int:
    try:
        main(["export", target, *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_repository_is_written(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _code(str(onnx_bundle(tmp_path_factory)), "-o", "models", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"path": "models", "models": ["streetvision"]}
    files = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*"))
    assert files == [
        f"models/streetvision/{name}"
        for name in ("1/model.onnx", "classes.txt", "config.pbtxt", "decisions.txt")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([WITHOUT_ONNX], "has no onnx/; export it with formats"),
        ([WITHOUT_ONNX, "-o", "."], ". exists; give --output a folder that does not"),
        (["nowhere"], "no registry of bundles is named"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert _code(*arguments) == 42
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_engines_need_the_package_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert _code(WITHOUT_ONNX, target="tensorrt") == 42
    error = capsys.readouterr().err
    assert "the package tensorrt is not installed" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
