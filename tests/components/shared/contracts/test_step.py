"""Running a step from a file: exit codes, status.json, and messages a user can act on."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.shared.contracts.config import Config, option
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import InputDir, OutputDir, execute, main, path_parameters


@dataclass(frozen=True, kw_only=True)
class Settings(Config):
    """One field."""

    count: int = option(1, "how many", ge=0)


def run(
    config: Settings, *, source: InputDir, result: OutputDir, extra: InputDir | None = None
) -> int:
    """Count."""
    if config.count == 13:
        raise DataError("count=13 is unlucky;\n use 12")
    if config.count == 99:
        raise RuntimeError("surprise")
    result.mkdir(parents=True)
    return config.count + len(list(source.iterdir()))


class _Artifact:
    def __init__(self, path: Path) -> None:
        self.path = str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/one").touch()
    return tmp_path


def _execute(folder: Path, count: int, **more: _Artifact) -> object:
    """Run the step as its KFP component does."""
    artifacts = {
        "source": _Artifact(folder / "in"),
        "result": _Artifact(folder / "task/out"),
        "extra": None,
    }
    return execute(run, {"count": count}, **artifacts, **more)


def _status(folder: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((folder / "task/status.json").read_text())
    return document


def test_path_parameters_and_their_roles() -> None:
    expected = {
        "source": "input directory",
        "result": "output directory",
        "extra": "input directory",
    }
    assert path_parameters(run) == expected


def test_success_returns_the_result_and_writes_the_status(folder: Path) -> None:
    assert _execute(folder, 2) == 3
    assert _status(folder)["state"] == "succeeded"


def test_outputs_that_are_metadata_only_leave_an_empty_file_for_the_local_cache(
    folder: Path,
) -> None:
    _execute(folder, 2, metrics=_Artifact(folder / "task/metrics"))
    assert (folder / "task/metrics").read_bytes() == b""


def test_a_permanent_error_exits_with_42_and_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        _execute(folder, 13)
    assert caught.value.code == 42
    assert capsys.readouterr().err == "error: count=13 is unlucky; use 12\n"
    status = _status(folder)
    assert (status["state"], status["error_class"], status["permanent"]) == (
        "failed",
        "DataError",
        True,
    )


def test_an_unexpected_error_is_transient_and_keeps_its_traceback(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="surprise"):
        _execute(folder, 99)
    assert _status(folder)["permanent"] is False


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"config": {"count": -1}}, "count=-1 must be >= 0"),
        ({"config": {"cuont": 1}}, "did you mean 'count'?"),
        ({"paths": {}}, "paths.source is missing (input directory)"),
        ({"configs": {}}, "unknown key 'configs', did you mean 'config'?"),
    ],
)
def test_a_wrong_file_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    document: dict[str, object],
    message: str,
) -> None:
    paths = {"source": str(folder / "in"), "result": str(folder / "task/out")}
    (folder / "job.json").write_text(json.dumps({"paths": paths} | document))
    monkeypatch.setattr("sys.argv", ["step", str(folder / "job.json")])
    with pytest.raises(SystemExit) as caught:
        main(run, Settings)
    assert caught.value.code == 42
    assert message in capsys.readouterr().err
    assert not (folder / "task/out").exists()


def test_help_names_every_path_and_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["step", "--help"])
    with pytest.raises(SystemExit) as caught:
        main(run, Settings)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("source", "result", "count = 1", "how many"))
