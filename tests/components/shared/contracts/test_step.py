"""Running a step from a file: exit codes, status.json, and messages a user can act on."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.shared.contracts import step
from components.shared.contracts.config import Config, option
from components.shared.contracts.environment import Variable
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
        ({"config": []}, "job.json: config: Input should be"),
        ({"paths": None}, "job.json: paths: Input should be"),
        ({"paths": {"source": 5}}, "job.json: paths.source"),
        ({"paths": {"source": ["in"], "result": "out"}}, "source=['in'] must be one path"),
        ({"paths": {"source": "a" * 5000, "result": "out"}}, "does not exist"),
        ({"paths": {"source": "a\0b", "result": "out"}}, "does not exist"),
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
    monkeypatch.chdir(folder)  # the status of relative paths
    monkeypatch.setattr("sys.argv", ["step", str(folder / "job.json")])
    monkeypatch.chdir(folder)  # where a relative output's status.json goes
    with pytest.raises(SystemExit) as caught:
        main(run, Settings)
    assert caught.value.code == 42
    assert message in capsys.readouterr().err
    assert not (folder / "task/out").exists()


@pytest.mark.parametrize(
    "content", [b"[1]", b"5", b"null", b"\xff", b"[" * 100_000, b'{"config": NaN}', b""]
)
def test_a_file_of_another_form_is_refused_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
) -> None:
    (folder / "job.json").write_bytes(content)
    monkeypatch.setattr("sys.argv", ["step", str(folder / "job.json")])
    with pytest.raises(SystemExit) as caught:
        main(run, Settings)
    assert caught.value.code == 42
    error = capsys.readouterr().err
    assert error.startswith(f"error: {folder}/job.json: ")
    assert error.count("\n") == 1


def test_a_step_without_outputs_reports_where_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.STATUS, str(folder / "task/status.json"))
    with pytest.raises(SystemExit):
        execute(_without_outputs, {"count": 13})
    assert _status(folder)["message"] == "count=13 is unlucky"


def _without_outputs(config: Settings) -> None:
    raise DataError(f"count={config.count} is unlucky")


def test_a_full_disk_is_one_line_and_may_have_room_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/pixels")

    monkeypatch.setattr(step, "write_json", full)  # which must not hide the error either
    with pytest.raises(SystemExit) as caught:
        _execute(folder, 2)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: /data/pixels: No space left on device\n"


def test_a_name_that_the_output_cannot_show_does_not_end_a_step(folder: Path) -> None:
    """Under the locale POSIX, without the UTF-8 mode that Python chooses there by itself."""
    program = (
        "from components.shared.contracts.config import Config\n"
        "from components.shared.contracts.step import execute\n"
        "def run(config: Config) -> None: print('\\u00fc.jpg \\udcff.jpg')\n"
        "execute(run, {})\n"
    )
    strict = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(step.__file__).parents[3]), **strict},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "\\xfc.jpg \\udcff.jpg\n"


def test_help_names_every_path_and_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["step", "--help"])
    with pytest.raises(SystemExit) as caught:
        main(run, Settings)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("source", "result", "count = 1", "how many"))
