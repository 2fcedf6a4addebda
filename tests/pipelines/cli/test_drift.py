"""The verb `drift`: exit codes, what it prints and keeps, and what it refuses in one line."""

import dataclasses
import json
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import read_manifest
from components.shared.data.drift_reference import write_reference
from components.shared.serving.bundle import open_bundle
from components.shared.storage import StoreSettings
from pipelines.cli.app import main
from tests.bundles import resigned
from tests.drift import write_bundle, write_new_images

FEW = ("--option", "n_permutations=199", "--option", "false_alarm_rate=0.02")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a drift reference."""
    return write_bundle(tmp_path_factory.mktemp("drift"))


def _code(*arguments: object) -> int:
    try:
        main(["drift", *map(str, arguments)])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_exit_code_says_whether_there_is_drift(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ("--reference", bundle, *FEW, "--images")
    assert _code(*places, write_new_images(tmp_path / "same")) == 0
    assert capsys.readouterr().out.startswith("no drift: a classifier tells 40 new from 60")

    kept = tmp_path / "kept"
    dark = write_new_images(tmp_path / "dark", darker=0.4)
    for _ in range(2):  # what an earlier call has kept is replaced
        assert _code(*places, dark, "--output", kept) == 3
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].startswith("drift: ")
    assert printed[-1] == f"report: {kept / 'report.html'}"
    assert read_manifest(kept).config["false_alarm_rate"] == 0.02

    assert _code(*places, dark, "--json") == 3
    assert json.loads(capsys.readouterr().out) == json.loads((kept / "drift.json").read_text())


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error, without the warning that the bundle is not signed."""
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if not line.endswith("its sums do not say who made it"))
    return line


def test_bad_input_is_one_line_and_code_42(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    golden = Path(__file__).parents[2] / "golden/schema1/bundle"
    empty = ("--images", tmp_path / "empty")
    for arguments, says in (
        ((*empty, "--reference", bundle), "holds no images; is the prefix right?"),
        ((*empty, "--reference", golden), "has no reference/ with which new images could be"),
        ((*empty, "--reference", bundle, "--option", "alpha=1"), "unknown key 'alpha'"),
        (
            (*empty, "--reference", bundle, "--option", "alpha"),
            "'alpha' must be key=value",
        ),
        ((*empty, "--reference", bundle, "--option", "false_alarm_rate=0.0001"), "must be >= 9999"),
        ((*empty, "--reference", bundle, "--output", tmp_path / "taken"), "holds no drift.json"),
    ):
        assert _code(*arguments) == 42, says
        error = _error(capsys)
        assert error.startswith("error: ")
        assert says in error


def test_a_reference_of_another_backbone_is_one_line_and_code_42(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = open_bundle(bundle).drift_reference()
    other = dataclasses.replace(found, probe=found.probe[::-1].copy())
    of_other = resigned(
        bundle, tmp_path / "other", lambda out: write_reference(out / "reference", other)
    )
    images = write_new_images(tmp_path / "new", count=20)
    assert _code("--images", images, "--reference", of_other) == 42
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert "another backbone computed the reference" in error.splitlines()[-1]


def test_an_empty_prefix_is_one_line_and_code_42(
    bundle: Path,
    s3: StoreSettings,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    assert _code("--images", f"s3://{bucket}/tonight", "--reference", bundle) == 42
    assert _error(capsys).startswith(f"error: images='s3://{bucket}/tonight' holds no objects")
