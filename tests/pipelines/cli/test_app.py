"""The command line itself: verbs and options, help texts, usage errors, start-up, completion."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from components.shared.contracts.errors import ConfigError
from pipelines.cli.app import SCRIPT, command, main, program_name, run_verb, verbs
from pipelines.cli.help import MODULE
from pipelines.sources import ROOT

# What scripts rely on: verbs with their options, those of a group included.
ADDRESS = {"--host", "--namespace", "--ca-file"}
API = ADDRESS | {"--pipeline"}
STORE = {"--root", "--store-endpoint"}
PARAMETERS = {"--params", "--param"}
GRAPH = {"--pretrain", "--modes", "--ingest-parts", "--audit-labels", "--formats"}
RESOURCES = {"--profile", "--queue", "--store-secret", "--own-store", "--registry"}
RUN = {"--experiment", "--service-account"}
SENT = API | STORE | PARAMETERS | GRAPH | RESOURCES | RUN | {"--dry-run"}
REGISTRY = STORE | {"--bundle-registry", "--runs"}
FROM = ADDRESS | REGISTRY
ANNOUNCE = {"--on-promotion", "--model-registry-url"}
# Whose options are those of a module of its own.
ARGPARSE = (["predict"], ["serve"])
OPTIONS = {
    "run": PARAMETERS | GRAPH | {"--pipeline", "--demo", "--output", "--store", "--dry-run"},
    "tune": PARAMETERS | {"--search", "--demo", "--output", "--dry-run", "--json"},
    "parameters": set(),
    "drift": {"--images", "--reference", "--bundle-registry", "--option", "--output", "--json"}
    | {"--trusted-keys"},
    "score": FROM | {"--output", "--form", "--trusted-keys", "--json"},
    "export triton": FROM
    | {"--output", "--name", "--form", "--instances", "--gpu", "--json"}
    | {"--trusted-keys"},
    "export tensorrt": FROM | {"--output", "--trusted-keys", "--json"},
    "images": {"--build", "--push", "--registry"},
    "compile": RESOURCES | GRAPH | {"--pipeline", "--output"},
    "upload": API | RESOURCES | GRAPH | {"--dry-run"},
    "train-jobs": RESOURCES | GRAPH | {"--pipeline"},
    "upload-data": API | STORE | {"--delete"},
    "submit": SENT | {"--demo", "--name", "--wait", "--timeout", "--poll"},
    "status": API | STORE | {"--watch", "--json", "--poll"},
    "logs": API | STORE | {"--step", "--follow", "--poll"},
    "wait": API | STORE | {"--timeout", "--poll"},
    "cancel": API,
    "open": API,
    "runs": API | {"--limit"},
    "download": API | STORE | {"--output"},
    "schedule create": SENT | {"--cron", "--every", "--disabled"},
    "schedule list": API,
    "schedule enable": API,
    "schedule disable": API,
    "schedule delete": API | {"--force"},
    "champion": FROM | {"--limit", "--json"},
    "promote": FROM
    | ANNOUNCE
    | {"--because", "--artifacts", "--param", "--force", "--trusted-keys", "--json"},
    "rollback": FROM | ANNOUNCE | {"--because", "--trusted-keys", "--json"},
    "registry list": FROM | {"--json"},
    "registry show": FROM | {"--json"},
    "registry download": FROM | {"--output", "--trusted-keys", "--json"},
    "sign": FROM | {"--key", "--json"},
    "registry gc": FROM | {"--dry-run", "--undecided", "--keep", "--json"},
    "serving status": {
        "--name",
        "--namespace",
        "--bundle-registry",
        "--store-endpoint",
        "--json",
    },
    "select-for-labelling": FROM
    | {"--bundle", "--count", "--address", "--seed", "--output", "--trusted-keys", "--json"},
    "doctor": API | RESOURCES | GRAPH | {"--kfp-namespace", "--store-endpoint"},
    "smoke": API
    | STORE
    | RESOURCES
    | RUN
    | {"--only", "--skip", "--delete-data", "--timeout", "--poll"},
}


def _help(capsys: pytest.CaptureFixture[str], *verb: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*verb, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def _usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that is refused before it begins."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_the_verbs_and_their_options_are_those_that_scripts_use() -> None:
    tree = command(MODULE)
    found = {}
    for words in verbs():
        verb = tree
        for word in words:
            verb = verb.commands[word]
        if not hasattr(verb, "commands") and words not in ARGPARSE:
            names = {name for option in verb.params for name in option.opts}
            found[" ".join(words)] = {name for name in names if name.startswith("--")}
    assert found == OPTIONS


def test_the_verbs_stand_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(capsys)
    groups = ["Local:", "Images and packages:", "Kubeflow runs:", "Cluster:"]
    assert [line for line in text.splitlines() if line in groups] == groups
    listed = re.findall(r"^  ([a-z][a-z-]*) ", text.partition("Local:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(words[0] for words in verbs() if len(words) == 1)


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_the_help_of_a_verb_teaches(capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    text = _help(capsys, *verb)
    assert f"sage: {MODULE} {' '.join(verb)}" in text
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 100
    if verb not in (
        ["schedule"],
        ["registry"],
        ["export"],
        ["serving"],
    ):  # their actions have the examples
        assert f"  {MODULE} {' '.join(verb)}" in text or verb in ARGPARSE
        assert "example" in text


def test_a_wide_terminal_does_not_stretch_plain_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    assert max(len(line) for line in _help(capsys, "submit").splitlines()) <= 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rum"], "No such command 'rum'. Did you mean 'run'?; see: {} --help"),
        ([], "Missing command; see: {} --help"),
        (
            ["run", "--dryrun"],
            "No such option: --dryrun (Possible options: --dry-run); see: {} run --help",
        ),
        (["schedule"], "Missing command; see: {} schedule --help"),
        (["cancel"], "Missing argument 'RUN_ID'; see: {} cancel --help"),
        (["run", "--store", "s3"], "Invalid value for '--store': 's3' is not one of 'none',"),
        (
            ["wait", "--timeout", "long"],
            "unable to parse string as a number, not 'long'; see: {} wait --help",
        ),
        (["schedule", "create", "n"], "give one of --cron and --every"),
        (["schedule", "create", "n", "--cron", "0", "--every", "60"], "give one of --cron and"),
    ],
)
def test_a_usage_error_is_one_line_with_the_nearest_name_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    line = _usage_error(capsys, *arguments)
    assert line.startswith("error: ")
    assert says.format(MODULE) in line


def test_an_error_of_a_verb_is_one_line_and_code_42(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--demo", "--modes", "half"])
    assert caught.value.code == 42
    assert capsys.readouterr().err.startswith("error: --modes 'half': 'half' must be one of frozen")
    with pytest.raises(ConfigError, match="'half' must be one of"):
        run_verb(["run", "--demo", "--modes", "half"])


def test_a_misspelled_parameter_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--demo", "--param=epoch=5"])
    assert caught.value.code == 42
    assert "'epochs'" in capsys.readouterr().err


def test_help_imports_nothing_that_takes_long() -> None:
    """What makes the command line answer at once."""
    code = (
        "import sys\n"
        "from pipelines.cli.app import main\n"
        "for verb in ([], ['run'], ['submit'], ['smoke'], ['doctor']):\n"
        "    try: main([*verb, '--help'])\n"
        "    except SystemExit: pass\n"
        "slow = {'kfp', 'torch', 'numpy', 'kubernetes', 'transformers', 'yaml', 'rich'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stderr == "[]\n"


def test_the_help_is_rich_on_a_terminal_and_plain_in_a_pipe() -> None:
    script = "import pty, sys; pty.spawn([sys.executable, '-m', 'pipelines', '--help'])"
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120"}
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "\x1b[" in shown
    assert "╭─ Kubeflow runs ─" in re.sub(r"\x1b\[[\d;]*m", "", shown)

    piped = subprocess.run(
        [sys.executable, "-m", "pipelines", "--help"],
        cwd=ROOT,
        env=environment | {"GITHUB_ACTIONS": "true"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "\x1b" not in piped
    assert "╭" not in piped


def test_help_names_the_program_as_it_was_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program_name() == MODULE
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/streetvision"])
    text = _help(capsys, "run")
    assert "Usage: streetvision run" in text
    assert "  streetvision run --demo\n" in text
    assert MODULE not in text
    assert "--install-completion" in _help(capsys)


def test_a_shell_completes_verbs_and_options_of_the_script(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT])
    monkeypatch.setenv("_STREETVISION_COMPLETE", "complete_bash")
    for words, completed in (("up", "upload\nupload-data\n"), ("submit --reg", "--registry\n")):
        monkeypatch.setenv("COMP_WORDS", f"{SCRIPT} {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        with pytest.raises(SystemExit):
            main([])
        assert capsys.readouterr().out.split() == completed.split()


def test_the_script_and_the_dependencies_are_declared_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {SCRIPT: "pipelines.cli.app:main"}
    pinned = {
        Requirement(line).name.lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    dynamic = project["tool"]["setuptools"]["dynamic"]
    for source in (dynamic["dependencies"], dynamic["optional-dependencies"]["dev"]):
        (file,) = source["file"]
        lines = (ROOT / file).read_text().splitlines()
        names = {Requirement(line).name.lower() for line in lines if not line.startswith("#")}
        assert names <= pinned, names - pinned


def test_both_packages_declare_that_they_are_typed() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in ("components", "pipelines"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_verb_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    number = getattr(signal, name)

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("pipelines.cli.local.run_values", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["run", "--output", str(tmp_path / "runs")])
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == f"error: interrupted by {name}\n"


def test_a_full_disk_ends_a_verb_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/demo/data/labels.csv")

    monkeypatch.setattr("pipelines.cli.local.run_values", write)
    with pytest.raises(SystemExit) as ended:
        main(["run", "--output", str(tmp_path / "runs")])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: runs/demo/data/labels.csv: No space left on device\n"
