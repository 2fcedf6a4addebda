"""The verbs `export triton` and `export tensorrt`: they write a folder or, if not able, nothing."""

import json
import sys
from pathlib import Path

import pytest

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.environment import Variable
from components.shared.serving import tensorrt_engine
from components.shared.serving.formats import triton
from components.shared.storage import Store, StoreSettings
from components.shared.storage.artifacts import upload_artifact
from pipelines.cli import export
from pipelines.cli.app import main
from pipelines.sources import ROOT
from tests.bundles import onnx_bundle

WITHOUT_ONNX = str(ROOT / "tests/golden/schema1/bundle")
_UNSIGNED = f"warning: {WITHOUT_ONNX}: is not signed; its sums do not say who made it"


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
    error = capsys.readouterr().err.removeprefix(f"{_UNSIGNED}\n")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_read_where_the_options_say(
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload_artifact(Store(s3), onnx_bundle(tmp_path_factory), bucket, "b", kind=Kind.BUNDLE)
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert _code(f"s3://{bucket}/b/", "-o", "here") == 0

    monkeypatch.setenv(Variable.S3_ENDPOINT, "127.0.0.1:9")  # where nothing listens
    endpoint = ("--store-endpoint", s3.endpoint)
    assert _code(f"s3://{bucket}/b/", "-o", "there", *endpoint) == 0
    for file in (tmp_path / "here").rglob("*.*"):
        copy = tmp_path / "there" / file.relative_to(tmp_path / "here")
        assert copy.read_bytes() == file.read_bytes()


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be able to build engines, and fail where a bundle is looked for."""

    def fetched(*_: object) -> None:
        raise AssertionError("the bundle was fetched before the mistake was seen")

    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", lambda: None)
    monkeypatch.setattr(export, "verified_bundle", fetched)


@pytest.mark.parametrize("target", ["triton", "tensorrt"])
@pytest.mark.parametrize(
    ("output", "message"),
    [
        (".", ". exists; give --output a folder that does not"),
        ("no/models", "--output 'no/models': the folder above it does not exist; make it"),
        ("file/models", "--output 'file/models': the folder above it does not exist; make it"),
        ("/proc/models", "--output '/proc/models': cannot be written (No such file or directory)"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_the_download(
    no_download: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    output: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert _code("champion", "-o", output, target=target) == 42
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--form", "transformers"], "form='transformers' must be onnx or onnx_int8\n"),
        (["--form", "int8"], "form='int8' must be onnx or onnx_int8\n"),
        (["--name", "../x"], "name='../x' must be letters, digits, '-' and '_', at most 64,"),
    ],
)
def test_a_wrong_word_is_refused_before_the_download(
    no_download: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _code("champion", *arguments) == 42
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_appears_meanwhile_is_left_as_it_is(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write(*_: object, **__: object) -> list[str]:
        (tmp_path / "models").mkdir()
        (tmp_path / "models/mine").touch()
        (tmp_path / ".models.partial/models").mkdir()
        return ["streetvision"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(triton, "write_repository", write)
    assert _code(str(onnx_bundle(tmp_path_factory))) == 42
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --output 'models': cannot be written (Directory not empty)")
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == [
        "models",
        "models/mine",
    ]


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
