"""The bundle's list of libraries: valid CycloneDX, of the lock, and always the same bytes."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from components.export_bundle import sbom
from components.export_bundle.config import ExportConfig
from components.export_bundle.sbom import SBOM, packages, write_sbom
from components.shared.contracts.artifacts import sha256_file

CONFIG = ExportConfig(model_name="roadwork", model_version="1.2.3")


def _written(folder: Path) -> str:
    folder.mkdir()
    write_sbom(folder, CONFIG)
    return (folder / SBOM).read_text()


def test_it_is_cyclonedx_and_has_neither_time_nor_serial_number(tmp_path: Path) -> None:
    text = _written(tmp_path / "first")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert _written(tmp_path / "second") == text

    document = json.loads(text)
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]
    model = document["metadata"]["component"]
    assert (model["name"], model["version"]) == ("roadwork", "1.2.3")
    assert model["type"] == "machine-learning-model"
    (depends,) = (e["dependsOn"] for e in document["dependencies"] if e["ref"] == "model")
    assert len(depends) == len(document["components"]) == len(packages())


def test_it_lists_the_packages_of_the_lock_as_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "numpy==0.0.1 \\\n    --hash=sha256:00\nkfp[all]==2 \\\n    # via x\nno-such-thing==1\n"
    )
    monkeypatch.setattr(sbom, "_LOCKS", (tmp_path / "none.txt", lock))
    assert packages() == {name: importlib.metadata.version(name) for name in ("kfp", "numpy")}
    document = json.loads(_written(tmp_path / "out"))
    assert document["metadata"]["component"]["properties"] == [
        {"name": "streetvision:lock:sha256", "value": sha256_file(lock)}
    ]
    assert [entry["purl"] for entry in document["components"]] == [
        f"pkg:pypi/{name}@{found}" for name, found in packages().items()
    ]


def test_what_the_export_needs_is_in_the_lock_of_its_image() -> None:
    """And so is every package of the run's lock that this environment has."""
    image = Path("locks/image-trainer.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==", image, re.MULTILINE))
    assert {"torch", "transformers", "numpy", "model-signing", "cyclonedx-python-lib"} <= pinned
    assert {"torch", "transformers", "numpy"} <= packages().keys()


def test_without_a_lock_everything_that_is_installed_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sbom, "_LOCKS", (tmp_path / "none.txt",))
    assert {"pytest", "torch"} <= packages().keys()
