"""Runs on this machine: errors, folders, damage; and one of the whole pipeline with a store."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir
from components.shared.contracts.errors import (
    ArtifactError,
    PermanentError,
    StreetVisionError,
    TransientError,
    one_line,
)
from pipelines.cli import app as cli
from pipelines.local import embedded_store as embedded
from pipelines.local import run
from pipelines.local.plan import plan
from pipelines.parameters import Variant, parse_variant, read_parameters
from pipelines.sources import ROOT
from tests.components.conftest import write_backbone, write_source
from tests.pipelines.local import small_pipeline

_RUN = """
import sys
from unittest import mock
from pathlib import Path
from pipelines.local import run
from pipelines.parameters import Variant
from tests.pipelines.local import small_pipeline
with (
    mock.patch.object(run, "configured"),
    mock.patch.object(run, "pipeline_of", lambda *_: small_pipeline.small),
    mock.patch.object(Variant, "with_form"),
):
    run.run_local(small_pipeline.values(), Path(sys.argv[1]), Variant())
"""

MODES = "full,lora"
PLANTED = ("PLANTEDACCESSKEY0001", "planted-secret-key-5f1c0a7d")


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, its parameters, what it printed."""

    root: Path
    values: dict[str, Any]
    printed: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The whole pipeline on tiny data in the embedded store, with credentials that can be looked
    for.
    """
    root = tmp_path_factory.mktemp("local")
    write_source(root / "data")
    write_backbone(root / "backbone")
    values: dict[str, Any] = {
        "data": str(root / "data"),
        "backbone": str(root / "backbone"),
        "image_size": 56,
        "epochs": 1,
        "learning_rate": 0.002,
        "min_per_class": 2,
        "n_bootstrap": 100,
        "n_processes": 1,
    }
    (root / "run.yaml").write_text(yaml.safe_dump(values))
    options = [
        "run",
        "--params",
        str(root / "run.yaml"),
        "--output",
        str(root / "runs"),
        "--store",
        "embedded",
    ]
    options += ["--modes", MODES]
    tokens = {10: PLANTED[0], 20: PLANTED[1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded.secrets, "token_hex", lambda n: tokens[n])
        patch.setenv("STREETVISION_S3_SESSION_TOKEN", "")
        log = root / "log"
        with log.open("w") as stream:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            cli.main(options)
    return Finished(root, values, log.read_text())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are of two real steps in the place of stage 1, whose form is not read."""
    monkeypatch.setattr(run, "configured", lambda values: values)
    monkeypatch.setattr(run, "pipeline_of", lambda *_: small_pipeline.small)
    monkeypatch.setattr(Variant, "with_form", lambda *_: None)


def _run(output: Path, **ends: str) -> run.LocalRun:
    return run.run_local(small_pipeline.values(**ends), output, Variant())


@pytest.mark.parametrize(
    ("step", "end", "kind", "says"),
    [
        ("check", "permanent", PermanentError, "local failed: the data are wrong: \\x1b[95mred"),
        ("evaluate", "unexpected", TransientError, "local failed: a surprise"),
        ("check", "killed", TransientError, "checking was killed by SIGKILL"),
        ("check", "42", PermanentError, "checking failed: \\x1b[95ma line of its own"),
        ("evaluate", "7", TransientError, "evaluating failed: \\x1b[95ma line of its own"),
    ],
)
def test_a_run_ends_with_the_error_of_its_step_in_one_line(
    small: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    step: str,
    end: str,
    kind: type[Exception],
    says: str,
) -> None:
    """Also of a step without outputs, and of one that could not report."""
    with pytest.raises(StreetVisionError) as caught:
        _run(tmp_path / "runs", **{step: end})
    assert type(caught.value) is kind
    assert one_line(caught.value) == f"step {says}"
    assert "\x1b" not in capsys.readouterr().out


def test_a_damaged_artifact_is_made_again_and_what_is_returned_is_sound(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "runs"
    first = _run(output)
    (first.bundle / "policy.json").unlink()
    second = _run(output)
    assert second.evaluation == first.evaluation
    assert second.bundle != first.bundle
    verify_dir(second.bundle, Kind.BUNDLE)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("damaged")]
    assert said == [
        f"damaged, step exporting runs again: {first.bundle}: 1 difference(s) from its manifest:"
        " policy.json: missing"
    ]

    # In the middle: the step that reads it is the first to notice.
    (first.evaluation / "report.html").write_text("changed")
    with pytest.raises(PermanentError, match="local failed: the data are wrong"):
        _run(output, export="permanent")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("damaged")]
    assert len(said) == 1
    assert said[0].startswith(f"damaged, step evaluating runs again: {first.evaluation}: ")


def test_an_artifact_that_is_damaged_again_and_again_ends_the_run(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "damage", lambda artifact: f"{artifact}: 1 difference(s)")
    found = {"bundle": tmp_path / "runs/a-run/exporting/bundle"}
    monkeypatch.setattr(run, "_run_once", lambda *_: found)
    monkeypatch.setattr(run.Cache, "drop", lambda *_: True)
    with pytest.raises(ArtifactError, match=r"delete .*/a-run/exporting to have it made again"):
        _run(tmp_path / "runs")


def test_two_runs_in_one_folder_have_folders_and_errors_of_their_own(
    small: None, tmp_path: Path
) -> None:
    output = tmp_path / "runs"
    other = subprocess.Popen([sys.executable, "-c", _RUN, output], cwd=ROOT)
    with pytest.raises(PermanentError, match="step local failed: the data are wrong"):
        _run(output, check="permanent")
    assert other.wait() == 0
    assert len(list(output.glob("streetvision-stage1-*"))) == 2


def test_a_new_folder_is_of_one_run_at_whatever_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        """A clock that shows every time twice."""

        times = iter([1, 1, 2, 2])

        @classmethod
        def now(cls) -> datetime:
            return datetime(2026, 1, 1, microsecond=next(cls.times))

    monkeypatch.setattr(run, "datetime", Clock)
    assert run._new_run_folder(tmp_path, "p") != run._new_run_folder(tmp_path, "p")


def test_the_next_run_removes_what_a_killed_step_left(small: None, tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="step exporting was killed by SIGKILL"):
        _run(tmp_path / "runs", export="killed")
    assert len(list(tmp_path.glob("runs/*/exporting/.bundle.partial"))) == 1
    with pytest.raises(StreetVisionError):
        _run(tmp_path / "runs", check="42")
    assert not list(tmp_path.glob("runs/*/*/.*"))


@pytest.mark.slow
def test_data_come_from_the_store_and_the_bundle_goes_there(finished: Finished) -> None:
    assert "registered: s3://streetvision/registry/bundles/" in finished.printed
    documents = [
        file.read_text()
        for file in (finished.root / "runs").glob("streetvision-*/*/executor_input.json")
    ]
    assert all(str(finished.root / "data") not in document for document in documents)


@pytest.mark.slow
def test_no_credential_is_in_spec_logs_artifacts_reports_or_cache(
    finished: Finished, tmp_path: Path
) -> None:
    assert not any(secret in finished.printed for secret in PLANTED)
    cli.main(["compile", "--output", str(tmp_path / "stage1.yaml")])
    files = [file for file in [*finished.root.rglob("*"), *tmp_path.rglob("*")] if file.is_file()]
    looked_at = [file for file in files if finished.root / "runs/store/data" not in file.parents]
    assert len(looked_at) > 50
    for file in looked_at:
        content = file.read_bytes()
        assert not any(secret.encode() in content for secret in PLANTED), file


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code that a test may change."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("components", "pipelines", "images", "locks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", copy)
    return copy


ALWAYS = "configure"
# What changed: file of the tree or of the data, parameters, and the first steps that run again.
_SOURCES = ("ingest-dataset", "import-backbone")
CHANGES: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "nothing": ("", {}, ()),
    "README.md": ("README.md", {}, ()),
    "code of `evaluate`": ("components/evaluate/step.py", {}, ("evaluate",)),
    "code of `fit_threshold`": ("components/fit_threshold/step.py", {}, ("fit-threshold",)),
    "code of `train_baseline`": (
        "components/train_baseline/train.py",
        {},
        ("train-full", "train-lora"),
    ),
    "code of `split_dataset`": ("components/split_dataset/balance.py", {}, ("split-dataset",)),
    "code of `ingest_dataset`": ("components/ingest_dataset/step.py", {}, ("ingest-dataset",)),
    "code of `import_backbone`": (
        "components/import_backbone/backbone_sources.py",
        {},
        ("import-backbone",),
    ),
    "a module that all steps import": ("components/shared/contracts/errors.py", {}, _SOURCES),
    "a pinned version in all images": ("locks/installer.txt", {}, _SOURCES),
    "a pinned version in images with torch": ("locks/torch.txt", {}, ("import-backbone",)),
    "the Dockerfile": ("images/Dockerfile", {}, _SOURCES),
    "parameter `model_version`": ("", {"model_version": "9.9.9"}, ("export-bundle",)),
    "parameter `max_fnr`": ("", {"max_fnr": 0.5}, ("fit-threshold",)),
    "parameter `epochs`": ("", {"epochs": 2}, ("train-full", "train-lora")),
    "`--modes`: one more": (
        "",
        {"--modes": "full,lora,frozen"},
        ("extract-features", "train-frozen"),
    ),
    "`--formats`: `transformers` alone": ("", {"--formats": "transformers"}, ("export-bundle",)),
    "one image of the data": ("data/img/000.jpg", {}, ("ingest-dataset",)),
    "nothing any more": ("", {}, ()),
}
# Which steps read from which, in a run without extended pre-training.
READS = {
    "split-dataset": {"ingest-dataset"},
    "train-full": {"ingest-dataset", "split-dataset", "import-backbone"},
    "train-lora": {"ingest-dataset", "split-dataset", "import-backbone"},
    "compare-adaptations": {"train-full", "train-lora", "train-frozen"},
    "predict-logits": {"compare-adaptations"},
    "train-gate": {"compare-adaptations"},
    "compare-calibrators": {"predict-logits"},
    "fit-threshold": {"predict-logits", "compare-calibrators"},
    "calibrate-gate": {"train-gate"},
    "calibrate-scrc": {"predict-logits"},
    "evaluate": {
        "predict-logits",
        "train-gate",
        "fit-threshold",
        "calibrate-gate",
        "calibrate-scrc",
    },
    "export-bundle": {"compare-adaptations", "train-gate", "evaluate"},
}


@pytest.mark.slow
def test_the_caching_table(finished: Finished, tree: Path) -> None:
    """docs/caching.md has this table; what it says is what the plan of a run says."""
    changes = []
    for file, values, _ in CHANGES.values():
        place = finished.root if file.startswith("data/") else tree
        options = dict(values)
        given = {name: options.pop(f"--{name}", None) for name in ("modes", "formats")}
        changes.append(
            {
                "file": str(place / file) if file else "",
                "data": finished.values["data"],
                "params": str(finished.root / "run.yaml"),
                "changed": options,
                "graph": {"modes": MODES} | {k: v for k, v in given.items() if v is not None},
            }
        )
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("plans.py"), finished.root / "runs"],
        env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "HOME": str(tree)},
        input=json.dumps(changes),
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = []
    for (what, (_, _, first)), ran in zip(CHANGES.items(), json.loads(done.stdout), strict=True):
        assert set(ran) == {ALWAYS} | _downstream(first), what
        lines.append(f"| {what} | {', '.join(ran[1:]) or 'nothing'} |")
    table = "\n".join(lines)
    assert table in (ROOT / "docs/caching.md").read_text(), table


@pytest.mark.slow
def test_extended_pretraining_comes_between_the_backbone_and_every_training(
    finished: Finished, tmp_path: Path
) -> None:
    def steps(pretrain: str) -> list[str]:
        variant = parse_variant(pretrain, MODES)
        values = read_parameters(finished.root / "run.yaml", [], variant)
        return [row.step for row in plan(values, tmp_path, variant)]

    found = steps("unlabelled")
    assert len(found) == len(set(found))
    first, *rest = ["split-dataset", "pretrain-explora", "train-full", "train-lora"]
    assert all(found.index(first) < found.index(step) for step in rest)
    assert (
        found.index("import-backbone") < found.index("pretrain-explora") < found.index("train-full")
    )
    assert "pretrain-explora" not in steps("none")


@pytest.mark.slow
def test_pre_training_with_labels_runs_here(
    finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--params", str(finished.root / "run.yaml"), "--output", str(finished.root / "runs")]
    for pair in (
        "explora_objective=mae",
        "pretrain_explora.epochs=1",
        "explora_decoder_width=32",
        "mode=frozen",
    ):
        options += ["--param", pair]
    cli.main(["run", *options, "--store", "embedded", "--pretrain", "labelled"])
    assert "mae: training" in capfd.readouterr().out
    adapted = max((finished.root / "runs").glob("streetvision-*/pretrain-explora*/adapted"))
    assert verify_dir(adapted, "Backbone").summary["labels"] is True


def _downstream(first: tuple[str, ...]) -> set[str]:
    """The steps and all that read from them, directly or not."""
    found = set(first)
    for _ in READS:
        found |= {step for step, sources in READS.items() if found & sources}
    return found
