"""Every command of the documents, as a reader types it; tests/test_kubeflow_commands.py has those
of the Kubeflow guides.

`make test` checks each command as far as seconds allow: `make` shows what it would run, a run of
the pipeline is planned. `make test-all` runs the pipelines and the studies, on small data.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from components.shared.contracts.artifacts import read_manifest
from components.shared.storage import StoreSettings
from components.shared.storage.registry import Draft, Provenance
from pipelines.cli import app as cli
from pipelines.demo import backbone as demo_backbone
from pipelines.demo import dataset as demo_dataset
from pipelines.exit_codes import DRIFTED
from pipelines.sources import ROOT
from tests.components.conftest import write_backbone, write_source
from tests.drift import write_bundle, write_new_images
from tests.promotion import Run, make_run
from tests.registries import name_registry, new_registry

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
PYTHON = re.compile(r"^(\.venv/bin/)?python(?= -m )")
# What a run on small data needs besides the documented options.
SMALL = (
    "min_per_class=2 n_bootstrap=100 n_processes=1 epochs=1 train_gate.epochs=1 robustness=false"
)
# Programs that take minutes or need data of their own, with the options that make them short.
SHORT = {
    "tests.simulations.few_images": "--draws 2",
    "tests.simulations.validity": "--draws 2",
    "tests.studies.explora_demo": "epochs=1 global_batch_size=256",
}
# Verbs of the registry, which the documents name without an address.
REGISTRY = tuple(f"pipelines {verb} " for verb in ("champion", "promote", "rollback", "registry"))
# Hours, some on real data: their functions are tested in tests/simulations, studies and bench.
TOO_LONG = (
    "tests.bench ",
    "tests.bench.server_soak ",
    "tests.simulations.drift ",
    "tests.simulations.grouped ",
    "tests.simulations.intervals ",
    "tests.simulations.multiclass ",
    "tests.simulations.promotion ",
    "tests.simulations.racing ",
    "tests.simulations.runs ",
    "tests.simulations.slices ",
    "tests.simulations.splitting ",
    "tests.studies.bytes_per_step ",
    "tests.studies.explanations ",
    "tests.studies.formats",
    "tests.studies.gtsdb ",
    "tests.studies.gtsdb_adapted ",
    "tests.studies.input_size ",
    "tests.studies.int8 ",
    "tests.studies.labelling ",
    "tests.studies.label_audit ",
    "tests.studies.monitors ",
    "tests.studies.scaling ",
    "tests.studies.tuning ",
)


def _commands() -> list[str]:
    """Return the commands of all documents, each once; blocks with a language are no commands."""
    found: list[str] = []
    for document in DOCUMENTS:
        if document.name.startswith("kubeflow-"):
            continue
        text = document.read_text(encoding="utf-8")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if not language:
                found += [" ".join(line.split()) for line in _lines(block)]
    return list(dict.fromkeys(found))


def _lines(block: str) -> Iterator[str]:
    yield from (line for line in block.replace("\\\n", " ").splitlines() if "   " not in line)


def _module(command: str) -> str:
    return PYTHON.sub("", command).removeprefix(" -m ") + " "


COMMANDS = _commands()
RUNS = [command for command in COMMANDS if _module(command).startswith("pipelines run ")]
PROGRAMS = [command for command in COMMANDS if _module(command).startswith(tuple(SHORT))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the documents' commands name: photographs and a backbone, a bundle."""
    monkeypatch.chdir(tmp_path)
    _prepare(tmp_path)
    monkeypatch.setattr(demo_dataset, "write_demo_data", _write_small_data)
    monkeypatch.setattr(demo_backbone, "write_demo_backbone", _write_small_backbone)
    return tmp_path


@pytest.fixture(scope="module")
def promotable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run whose bundle is good, and one whose bundle is not."""
    folder = tmp_path_factory.mktemp("promotable")
    return make_run(folder / "good", seed=1), make_run(folder / "weak", seed=2)


@pytest.fixture
def former(
    s3: StoreSettings,
    folder: Path,
    promotable: tuple[Run, Run],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Make a registry that the environment names; return the digest of its former champion.

    The champion is the weak bundle; BUNDLE is the good one, whose artifacts are below `runs`.
    """
    good, weak = promotable
    registry = new_registry(s3)
    name_registry(registry, s3, monkeypatch)
    challenger = weak.challenger()
    known = Provenance(
        lineage=registry.put_lineage(challenger.lineage),
        split_table=registry.put_table(challenger.table),
    )
    digests = [
        registry.put_bundle(folder / "BUNDLE"),
        registry.put_bundle(weak.root / "bundle", known),
    ]
    for digest in digests:
        draft = Draft(kind="by_hand", promoted=True, challenger=digest, reason="test")
        registry.decide(draft, registry.champion())

    shutil.rmtree(folder / "BUNDLE")
    shutil.copytree(good.root / "bundle", folder / "BUNDLE")
    shutil.copytree(good.root, folder / "runs/good")
    return digests[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of this module, which share their cache."""
    return tmp_path_factory.mktemp("runs")


def test_the_documents_have_commands() -> None:
    assert len(COMMANDS) > 20
    assert len(RUNS) > 6


# A plan takes seconds: `make test` makes three, `make test-all` runs what all of them plan.
@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow if c in RUNS[3:] else ()) for c in COMMANDS],
)
def test_a_command_is_understood(
    command: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if command.startswith("make "):
        _run_shown_by_make(command)
    elif command in RUNS:
        _plan(command)
    elif _module(command).startswith(REGISTRY):
        digest = request.getfixturevalue("former")
        cli.main(shlex.split(_module(command).replace("DIGEST", digest))[1:])
    elif _module(command).startswith("pipelines drift "):
        bundle, new = write_bundle(folder / "drift"), write_new_images(folder / "new")
        words = _module(command).replace("BUNDLE", str(bundle)).replace("NEW", str(new))
        assert _exit_code(shlex.split(words)[1:]) in (0, DRIFTED)
    elif _module(command).startswith("pipelines "):
        cli.main(shlex.split(_module(command))[1:])
    elif _module(command).startswith((*TOO_LONG, *SHORT)):
        assert importlib.util.find_spec(_module(command).split()[0])
    else:
        _execute(command, folder)


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_a_documented_run_ends_with_a_bundle_or_an_infeasible_guarantee(
    command: str, folder: Path, runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [word for pair in SMALL.split() for word in ("--param", pair)]
    arguments = shlex.split(_module(command))[1:]
    if "--formats" not in arguments:  # test_run.py runs the whole pipeline with the default ones
        options += ["--formats", "transformers"]
    code = _exit_code([arguments[0], *options, *arguments[1:], "--output", str(runs)])

    shown = capfd.readouterr()
    if code:
        guarantee = any(text in command for text in ("policy=", "recipe=selective"))
        assert guarantee, shown.err
        assert code == 42
        assert "cannot be certified" in shown.err
    else:
        assert "bundle: " in shown.out or "--dry-run" in command


@pytest.mark.slow
@pytest.mark.parametrize("command", PROGRAMS)
def test_a_documented_study_runs(command: str, folder: Path, real_logits: Path) -> None:
    line = command.replace("resnet110_cifar10.npz", str(real_logits))
    module = _module(command).split()[0]
    line = line.replace("--draws 1000 ", "").replace("docs/results/", "")
    _execute(f"{line} {SHORT[module]}", folder)


def _exit_code(arguments: list[str]) -> int:
    try:
        cli.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _prepare(folder: Path) -> None:
    write_source(folder / "photos")
    write_backbone(folder / "facebook/dinov2-small")
    shutil.copytree(ROOT / "tests/golden/schema1/bundle", folder / "BUNDLE")
    Image.new("RGB", (64, 48), (200, 120, 40)).save(folder / "photo.jpg")
    # What the audit's guide hands to `relabel`; a row needs an id of the photographs only in a run.
    (folder / "corrections.csv").write_text("id,label\n", encoding="utf-8")


def _write_small_data(folder: Path) -> None:
    if not folder.exists():
        write_source(folder)


def _write_small_backbone(folder: Path) -> None:
    if not folder.exists():
        write_backbone(folder)


def _run_shown_by_make(command: str) -> None:
    """Plan the run that a target would start; of other targets make shows what they would do."""
    shown = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # A target's options may stand on several lines.
    for line in shown.stdout.replace("\\\n", " ").splitlines():
        if " -m pipelines run " in line:
            _plan(shlex.join(shlex.split(line)))


def _plan(command: str) -> None:
    arguments = shlex.split(_module(command.strip()))[1:]
    cli.main([*arguments, *(["--dry-run"] if "--dry-run" not in arguments else [])])


def _execute(command: str, folder: Path) -> None:
    line = PYTHON.sub(shlex.quote(sys.executable), command)
    assert line != command, f"no test runs {command!r}"
    line = line.replace("DIGEST", read_manifest(folder / "BUNDLE").content_digest)
    done = subprocess.run(
        shlex.split(line),
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
