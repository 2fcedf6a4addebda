"""The verb `select-for-labelling`: a bundle of a folder or the registry, mistakes in one line."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.environment import Variable
from components.shared.storage import Store, StoreSettings
from pipelines.cli.app import main
from pipelines.sources import ROOT
from tests.components.conftest import write_source

BUNDLE = ROOT / "tests/golden/schema1/bundle"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with 24 photographs and a bundle."""
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "photos", 24)
    shutil.copytree(BUNDLE, tmp_path / "BUNDLE")
    return tmp_path


def _failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["select-for-labelling", *arguments])
    assert caught.value.code == 42
    lines = capsys.readouterr().err.splitlines()
    return lines[-1]


def test_tasks_and_a_table_are_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["select-for-labelling", "photos", "--bundle", "BUNDLE", "--count", "4", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["n_chosen"], found["path"]) == (4, "labelling")
    with (folder / "labelling/selection.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    tasks = json.loads((folder / "labelling/label_studio.json").read_text())
    assert [task["data"]["path"] for task in tasks] == [row["path"] for row in rows]
    assert (folder / "labelling/label_studio.xml").read_text().startswith("<View>")

    assert "labelling exists; give --output" in _failed(capsys, "photos", "--bundle", "BUNDLE")


def test_a_bundle_of_the_registry_by_its_digits(
    folder: Path,
    s3: StoreSettings,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from components.shared.storage.registry import BundleRegistry

    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{bucket}/registry"
    monkeypatch.setenv(Variable.BUNDLE_REGISTRY, uri)
    assert "no champion yet" in _failed(capsys, "photos")
    nothing = _failed(capsys, f"s3://{bucket}/tonight", "--bundle", "BUNDLE")
    assert nothing.startswith(f"error: images='s3://{bucket}/tonight' holds no objects")

    BundleRegistry(Store(s3), bucket, "registry").put_bundle(BUNDLE)
    digest = read_manifest(BUNDLE).content_digest
    main(["select-for-labelling", "photos", "--bundle", digest[:8], "--count", "2"])
    assert "table: labelling/selection.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--bundle", "BUNDLE"], "images='nowhere' does not exist"),
        (["BUNDLE/model", "--bundle", "BUNDLE"], "holds no images; is the prefix right?"),
        (["photos", "--bundle", "photos"], "manifest.json"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in _failed(capsys, *arguments)
