"""`run`, `parameters` and `predict`: what they read, call and print; tests/pipelines/local runs."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.configure.phases import PHASES
from components.shared.contracts.artifacts import read_manifest, writing
from components.shared.contracts.config import Config
from components.shared.serving import predict
from pipelines.cli.app import main
from pipelines.local import plan as plan_module
from pipelines.local import run as run_module
from pipelines.local import store as store_module
from pipelines.local.plan import Planned
from pipelines.local.run import LocalRun

REPORT = {
    "question": "Roadwork or None",
    "split": "VAL_TEST",
    "policy": {},
    "policies": {},
    "n_samples": 40,
    "n_groups": 16,
    "metrics": {
        "accuracy": {"value": 0.9, "interval_95": [0.8, 0.95]},
        "mcc": {"value": None, "interval_95": None},
        "auroc": {"value": 0.97, "interval_95": [0.9, 0.99]},
        "ece_top_label": {"value": 0.05, "interval_95": None, "calibrated_95": [0, 0.08]},
    },
}


class _FakeStore:
    """Stands in for the S3 server of one run."""

    def __init__(self, found: dict[str, Any], *, is_equal: bool = True) -> None:
        self._found, self.is_equal = found, is_equal

    def mirror(self, source: str) -> str:
        self._found["mirrored"] = source
        return self.address(source)

    def mirrors(self, source: str) -> bool:
        return self.is_equal

    def address(self, source: str) -> str:
        return f"s3://streetvision/data of {Path(source).name}"

    def register(self, bundle: Path) -> str:
        return f"s3://streetvision/registry/{bundle.name}"


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The values that the pipeline is run with; nothing is run."""
    found: dict[str, Any] = {}

    def run_local(values: dict[str, Any], output: Path, variant: object) -> LocalRun:
        found.update(values=values, output=output, variant=variant)
        with writing(tmp_path / "bundle", kind="Bundle", step="export", config=Config()) as out:
            (out / "policy.json").write_text("{}")
        (tmp_path / "evaluation").mkdir()
        (tmp_path / "evaluation/eval_report.json").write_text(json.dumps(REPORT))
        return LocalRun(
            bundle=tmp_path / "bundle",
            evaluation=tmp_path / "evaluation",
            report=tmp_path / "report.html",
        )

    @contextlib.contextmanager
    def local_store(folder: Path) -> Iterator[_FakeStore]:
        found["store"] = folder
        yield _FakeStore(found, is_equal=not found.get("data differ"))

    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "run_local", run_local)
    monkeypatch.setattr(store_module, "local_store", local_store)
    return found


VALUES = ["--param", "data=photos", "--param", "backbone=facebook/dinov2-small"]


def test_a_run_ends_with_the_headline_metrics_and_where_the_outputs_are(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", *VALUES, "--output", "here", "--param", "epochs=2"])
    assert capsys.readouterr().out.splitlines() == [
        "VAL_TEST: Roadwork or None, 40 images, 16 groups",
        "  accuracy     0.900   95 %: 0.800 to 0.950",
        "  MCC           none   95 %: none",
        "  AUROC        0.970   95 %: 0.900 to 0.990",
        "  ECE          0.050   noise: up to 0.080",
        "report: report.html",
        f"digest: {read_manifest(tmp_path / 'bundle').content_digest}",
        "bundle: bundle",
    ]
    assert given["values"]["data"] == str(tmp_path / "photos")
    assert given["values"]["backbone"] == "facebook/dinov2-small"
    assert given["values"]["epochs"] == "2"
    assert given["output"] == Path("here")


def test_with_a_store_the_data_come_from_it_and_the_bundle_goes_there(
    given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", *VALUES, "--store", "embedded"])
    assert given["values"]["data"] == "s3://streetvision/data of photos"
    assert given["store"] == Path("runs/store")
    assert "registered: s3://streetvision/registry/bundle" in capsys.readouterr().out


def test_a_dry_run_prints_the_plan_and_runs_nothing(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [Planned("configure", "run, always"), Planned("evaluate", "cached")]
    monkeypatch.setattr(plan_module, "plan", lambda *_, **__: steps)
    main(["run", *VALUES, "--dry-run"])
    assert capsys.readouterr().out.split() == ["configure", "run,", "always", "evaluate", "cached"]
    assert given == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "data is not set; add --param data=FOLDER_OR_PARQUET, or --demo"),
        (["--param", "data=photos"], "backbone is not set; add --param backbone=PLACE"),
        ([*VALUES, "--pretrain", "all"], "--pretrain 'all' must be one of none, unlabelled"),
        (["--pipeline", "tune"], "--pipeline tune is run on this machine by the verb tune\n"),
        (["--pipeline", "tune-training"], "--pipeline tune-training is run on this machine by"),
        (
            ["--pipeline", "drift", "--param", "images=s3://b/new"],
            "--pipeline drift is run on this machine by the verb drift\n",
        ),
        (
            ["--pipeline", "labelling", "--dry-run"],
            "--pipeline labelling is run on this machine by the verb select-for-labelling\n",
        ),
        (["--pipeline", "score"], "--pipeline score is run on this machine by the verb score\n"),
        ([*VALUES, "--params", "absent.yaml"], "absent.yaml: cannot be read (No such file"),
    ],
)
def test_what_is_missing_or_wrong_is_told_before_anything_runs(
    given: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", *arguments])
    assert caught.value.code == 42
    assert capsys.readouterr().err.startswith(f"error: {says}")
    assert given == {}


def test_data_that_are_not_there_are_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere, output = tmp_path / "nowhere", tmp_path / "runs"
    given = ["--param", f"data={nowhere}", "--param", "backbone=org/name", "--output", str(output)]
    with pytest.raises(SystemExit) as caught:
        main(["run", *given])
    assert caught.value.code == 42
    assert capsys.readouterr().err == f"error: data='{nowhere}' does not exist\n"
    assert not output.exists()


@pytest.mark.parametrize("demo", [False, True])
def test_a_folder_of_runs_that_cannot_be_one_is_refused_before_anything_is_made(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], demo: bool
) -> None:
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for output, says in (
        ("file", f"--output 'file': {tmp_path}/file is not a folder"),
        ("photos/runs", "--output 'photos/runs' is inside the data"),
    ):
        if demo and "photos" in output:
            continue
        with pytest.raises(SystemExit) as caught:
            main(["run", *(["--demo"] if demo else VALUES), "--output", output])
        assert caught.value.code == 42
        assert capsys.readouterr().err.startswith(f"error: {says}")
    assert given == {}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_whose_name_is_not_utf8_is_refused(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """KFP cannot hand it over; so it is with an umlaut where Python is told to be ASCII."""
    name = "a\udcff"
    (tmp_path / name).mkdir()
    for data in (name, f"{name}/absent"):
        with pytest.raises(SystemExit) as caught:
            main(["run", *VALUES, "--param", f"data={data}"])
        assert caught.value.code == 42
        error = capsys.readouterr().err
        assert error.startswith("error: data=")
        assert "\\udcff" in error
        assert "is not UTF-8" in error
    assert given == {}


def test_the_folder_of_a_further_source_is_refused_too(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more").mkdir()
    more = json.dumps([{"data": str(tmp_path / "more")}])
    with pytest.raises(SystemExit) as caught:
        main(["run", *VALUES, "--param", f"extra_sources={more}", "--output", "more/runs"])
    assert caught.value.code == 42
    assert "is inside the data" in capsys.readouterr().err
    assert given == {}


def test_every_parameter_is_listed_below_its_phase(capsys: pytest.CaptureFixture[str]) -> None:
    main(["parameters"])
    lines = capsys.readouterr().out.splitlines()
    titles = [line.rstrip(":") for line in lines if not line.startswith(" ")]
    assert titles == ["form", *PHASES]
    assert any(line.startswith("  epochs = ") for line in lines)


def test_predict_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(
        predict, "main", lambda given, program: called.append((list(given), program))
    )
    main(["predict", "--batch-size", "4", "bundle", "a.jpg", "--all-views"])
    assert called == [
        (
            ["--batch-size", "4", "bundle", "a.jpg", "--all-views"],
            "python -m pipelines predict",
        )
    ]


@pytest.mark.parametrize("differ", [False, True])
def test_a_dry_run_changes_nothing_in_the_store(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, differ: bool
) -> None:
    planned: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        plan_module,
        "plan",
        lambda values, *_, data_are_new: planned.append((values["data"], data_are_new)) or [],
    )
    given["data differ"] = differ
    main(["run", *VALUES, "--store", "embedded", "--dry-run"])
    data = str(tmp_path / "photos") if differ else "s3://streetvision/data of photos"
    assert planned == [(data, differ)]
    assert "mirrored" not in given
