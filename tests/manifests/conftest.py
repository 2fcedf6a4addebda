"""Renderings of the manifests as a cluster gets them, for each mode with each option."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
KUBECTL = Path(sys.executable).with_name("kubectl")
OPTIONS = tuple(sorted(folder.name for folder in (MANIFESTS / "components").iterdir()))
STORE_NAMESPACE = "streetvision-store"
ROLES = ("data", "runs", "checkpoints", "registry")
NAMESPACES = {"single-user": "kubeflow", "profile": "streetvision"}
_OPTION_LINE = re.compile(r"^  (?:# )?- (\S*components/([\w-]+)(?:/settings)?)$", re.MULTILINE)
_ADDED: tuple[set[str], ...] = (
    set(),
    {"a6000"},
    {"dev"},
    {"kueue"},
    {"hub-access"},
    {"tls"},
    {"multi-node"},
    {"serving"},
    {"dev", "kueue", "hub-access"},
)
Object = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A mode with the options that are switched on in its kustomization files."""

    mode: str
    options: frozenset[str]

    def __str__(self) -> str:
        return "+".join((self.mode, *sorted(self.options)))


def variants() -> list[Variant]:
    """Each mode with each store, and with these each other option.

    A profile always has a store of its own.
    """
    stores: dict[str, list[set[str]]] = {
        "single-user": [set(), {"minio"}, {"external-s3"}],
        "profile": [{"minio"}, {"external-s3"}],
    }
    made = []
    for mode, choices in stores.items():
        for store in choices:
            made += [
                Variant(mode, frozenset(store | more))
                for more in _ADDED
                if store or "tls" not in more  # KFP's own store speaks HTTP
            ]
    return made


VARIANTS = variants()


def render(folder: Path) -> str:
    """YAML that `kubectl kustomize` makes of a folder, which it does without a warning."""
    finished = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr
    return finished.stdout


def parse(text: str) -> list[Object]:
    """Objects of a rendering."""
    return [document for document in yaml.safe_load_all(text) if document]


def identity(item: Object) -> str:
    """kind/namespace/name, as in kfp-2.17.0-objects.json."""
    return f"{item['kind']}/{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def named(objects: list[Object], kind: str) -> dict[str, Object]:
    """Objects of a kind by name."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def pods(objects: list[Object]) -> dict[str, Object]:
    """Pod templates by the name of what makes them."""
    makers = [
        item
        for item in objects
        if item["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job")
    ]
    return {item["metadata"]["name"]: item["spec"]["template"] for item in makers}


def fill_examples(folder: Path) -> None:
    """Take the examples for what a user fills in: Secrets, and an authority's certificate."""
    for example in folder.rglob("*.env.example"):
        shutil.copy(example, example.with_suffix(""))
    (folder / "components/tls/ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")


def switch_options(folder: Path, options: frozenset[str]) -> None:
    """Comment the lines of options in or out, below an overlay's folder, as a user does."""
    for file in folder.rglob("kustomization.yaml"):
        text = file.read_text()
        file.write_text(
            _OPTION_LINE.sub(
                lambda line: f"  {'' if line[2] in options else '# '}- {line[1]}", text
            )
        )


@pytest.fixture(scope="session")
def kfp_objects() -> dict[str, set[str]]:
    """Identities of what KFP 2.17.0 installs itself, by mode, and in each profile."""
    document = json.loads(Path(__file__).with_name("kfp-2.17.0-objects.json").read_text())
    return {key: set(names) for key, names in document.items() if key != "source"}


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the example secrets in place of the real ones."""
    copy = tmp_path_factory.mktemp("manifests") / "manifests"
    shutil.copytree(MANIFESTS, copy, ignore=shutil.ignore_patterns("*.env"))
    fill_examples(copy)
    return copy


@pytest.fixture(scope="session")
def overlay(manifests: Path) -> Callable[[Variant], Path]:
    """Give the folder of a variant, made once."""

    def folder(variant: Variant) -> Path:
        made = manifests / "overlays" / str(variant)
        if not made.exists():
            shutil.copytree(manifests / "overlays" / variant.mode, made)
            switch_options(made, variant.options)
        return made

    return folder


@pytest.fixture(scope="session")
def rendered(overlay: Callable[[Variant], Path]) -> Callable[..., list[Object]]:
    """Give the objects of a variant, or of a folder below it, rendered once."""
    cache: dict[Path, list[Object]] = {}

    def objects(variant: Variant, below: str = "") -> list[Object]:
        folder = overlay(variant) / below
        if folder not in cache:
            cache[folder] = parse(render(folder))
        return cache[folder]

    return objects


@pytest.fixture(scope="session")
def minio(manifests: Path) -> list[Object]:
    """Objects of the store's own namespace, which is made apart from them."""
    return parse(render(manifests / "minio"))


@pytest.fixture(scope="session")
def minio_with_tls(manifests: Path) -> list[Object]:
    """The same with HTTPS."""
    made = manifests / "minio-tls"
    shutil.copytree(manifests / "minio", made)
    file = made / "kustomization.yaml"
    file.write_text(file.read_text().replace("  # - tls\n", "  - tls\n"))
    return parse(render(made))


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    """Each mode with each option."""
    chosen: Variant = request.param
    return chosen


@pytest.fixture
def objects(rendered: Callable[..., list[Object]], variant: Variant) -> list[Object]:
    """All objects of one variant."""
    return rendered(variant)
