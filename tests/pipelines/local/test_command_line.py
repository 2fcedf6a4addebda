"""Folders and values that a shell would change: spaces, quotes, dollar signs, `python3`."""

import json
import os
import shlex
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from components.shared.contracts.errors import PermanentError
from pipelines.local import command_line
from pipelines.sources import ROOT
from tests.components.conftest import write_backbone, write_source

FOLDER = "my photos (ü) python3"
# kfp's local runner replaces the first, and looks for placeholders like the others in values, too.
DESCRIPTION = (
    "python3 model: {{$.inputs.parameters['data']}} {{$.pipeline_task_name}} /kfp-workspace $(touch"
    " y) it's `a`"
)
_SETTINGS = (
    "locks/installer.txt",
    "locks/torch.txt",
    "locks/cuda.txt",
    "locks/run.txt",
    "pyproject.toml",
    "README.md",
    "Makefile",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with data and an environment that sees this one's packages, in the folder."""
    root = tmp_path_factory.mktemp("folder") / FOLDER
    for name in ("components", "pipelines", "images", "locks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    _copy_settings(root)
    write_source(root / "data")
    write_backbone(root / "backbone")

    venv.create(root / ".venv", symlinks=True)
    packages = next((root / ".venv").glob("lib/*/site-packages"))
    lines = [f"import site; site.addsitedir({folder!r})" for folder in site.getsitepackages()]
    (packages / "installed.pth").write_text("\n".join(lines))
    (root / ".venv/.installed").touch()
    return root


def _copy_settings(root: Path) -> None:
    """Copy what make reads, older than the mark that says that it was installed."""
    for name in _SETTINGS:
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)


def _make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run make as a person would, without the settings of a make around the tests."""
    environment = {
        name: text
        for name, text in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_whole_pipeline_runs_from_and_in_the_folder(checkout: Path) -> None:
    values = {
        "image_size": 56,
        "epochs": 1,
        "learning_rate": 0.002,
        "min_per_class": 2,
        "n_bootstrap": 100,
        "n_processes": 1,
        "description": DESCRIPTION,
    }
    (checkout / "run values.yaml").write_text(yaml.safe_dump(values))
    beside = set(checkout.parent.iterdir())

    options = [f"DATA={checkout}/data", f"BACKBONE={checkout}/backbone", "PARAMS=run values.yaml"]
    done = _make(checkout, "run", *options, f"ARGS=--output '{checkout}/its runs'")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    bundle = checkout / done.stdout.partition("bundle: ")[2].strip()
    assert bundle.is_relative_to(checkout / "its runs")
    assert DESCRIPTION in (bundle / "README.md").read_text(encoding="utf-8")
    assert set(checkout.parent.iterdir()) == beside
    assert not (checkout / "y").exists()

    again = _make(checkout, "run", *options, f"ARGS=--output '{checkout}/its runs' --dry-run")
    rows = [
        line.split(maxsplit=1)
        for line in again.stdout.splitlines()
        if line.split(maxsplit=1)[-1] != "cached"
    ]
    assert ["configure", "run, always"] in rows
    assert not any(state == "run" for _, state in rows)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder whose interpreter writes down its arguments and does nothing else."""
    root = tmp_path / FOLDER
    root.mkdir()
    _copy_settings(root)
    program, record = root / "an interpreter", tmp_path / "record.py"
    record.write_text(
        "import json, pathlib, shutil, sys\n"
        "program, *given = sys.argv[1:]\n"
        "with open('calls', 'a') as stream:\n    stream.write(json.dumps(given) + '\\n')\n"
        "if given[:2] == ['-m', 'venv']:\n    pathlib.Path(given[2], 'bin').mkdir(parents=True)\n"
        "    shutil.copy(program, pathlib.Path(given[2], 'bin', 'python'))\n"
    )
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(record))} "$0" "$@"\n'
    )
    program.chmod(0o755)
    return root


@pytest.mark.parametrize(
    "value", [f"{FOLDER}/data", "x;touch y", 'it\'s "one"', "a$b$(c)${d}`e`, f", "g # h"]
)
def test_a_value_of_make_is_one_word_as_it_was_given(recorded: Path, value: str) -> None:
    interpreter = f"PYTHON={recorded}/an interpreter"
    done = _make(
        recorded,
        "run",
        interpreter,
        f"DATA={value}",
        f"BACKBONE={value}",
        f"PARAMS={value}",
        "ARGS=-a 'b c'",
    )
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in (recorded / "calls").read_text().splitlines()]
    assert calls[0] == ["-m", "venv", ".venv"]
    assert [call[:3] for call in calls[1:-2]] == [["-m", "pip", "install"]] * 4
    given = ["--param", f"data={value}", "--param", f"backbone={value}", "--params", value]
    assert calls[-1] == ["-m", "pipelines", "run", *given, "-a", "b c"]
    assert not (recorded / "y").exists()


def test_the_path_of_the_project_is_ascii_whatever_the_folder(recorded: Path) -> None:
    """Python decodes it in the locale's encoding, so that LC_ALL=POSIX would start nothing."""
    _make(recorded, "install", f"PYTHON={recorded}/an interpreter")
    *_, option, program, environment = json.loads((recorded / "calls").read_text().splitlines()[-1])
    assert (option, environment) == ("-c", ".venv")

    packages = recorded / ".venv/lib/python3/site-packages"
    packages.mkdir(parents=True)
    path = packages / "__editable__.streetvision-0.1.0.pth"
    path.write_text(str(recorded), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-S", "-c", program, environment],
        cwd=recorded,
        env={"LC_ALL": "POSIX"},
        check=True,
    )

    assert path.read_bytes() == b"../../../..\n"
    assert (packages / path.read_text().strip()).resolve() == recorded


@pytest.mark.parametrize("target", ["test", "test-containers", "clean-runs", "test-faults"])
def test_no_variable_of_make_is_shell_text(recorded: Path, target: str) -> None:
    values = [f"{name}=x;touch y" for name in ("WORKERS", "ENGINE", "OUTPUT", "KILLS")]
    _make(recorded, target, f"PYTHON={recorded}/an interpreter", *values)
    assert not (recorded / "y").exists()


def test_make_shows_a_quoted_command() -> None:
    shown = _make(ROOT, "-n", "run", f"DATA={FOLDER}/data").stdout
    assert f"--param 'data={FOLDER}/data'" in shown


@pytest.mark.parametrize("place", ["my venv", "a:b"])
def test_an_environment_that_make_cannot_name_is_refused_in_one_line(
    recorded: Path, place: str
) -> None:
    before = set(recorded.iterdir())
    done = _make(recorded, "run", f"VENV={place}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"VENV='{place}' must be a path without spaces and colons" in done.stderr
    assert set(recorded.iterdir()) == before


def test_a_command_of_another_decorator_is_refused(tmp_path: Path) -> None:
    compiled = ["python3", "-m", "other", "module", "code", "--executor_input", "{{$}}"]
    with pytest.raises(PermanentError, match=r"^command='python3 -m other module' of a"):
        command_line._arguments(compiled, tmp_path)
    assert not list(tmp_path.iterdir())
