"""Every overlay as a cluster would get it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
OVERLAYS = sorted(folder.name for folder in (MANIFESTS / "overlays").iterdir())
Object = dict[str, Any]


def build(folder: Path) -> list[Object]:
    """The objects that `kubectl kustomize` makes of a folder."""
    kubectl = Path(sys.executable).with_name("kubectl")
    finished = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return [document for document in yaml.safe_load_all(finished.stdout) if document]


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the example secrets in place of the real ones."""
    copy = tmp_path_factory.mktemp("manifests") / "manifests"
    shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("*.env"))
    for example in copy.rglob("*.env.example"):
        shutil.copy(example, example.with_suffix(""))
    return copy


@pytest.fixture(scope="session", params=OVERLAYS)
def objects(manifests: Path, request: pytest.FixtureRequest) -> list[Object]:
    """All objects of one overlay."""
    return build(manifests / "overlays" / request.param)
