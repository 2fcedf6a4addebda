"""The sources that a phase runs, and the name of the image that holds exactly these.

A phase's image holds the modules its component imports, directly or not, and nothing else of ours.
So the digest in its name changes when code that the phase can reach changes, and KFP's cache reruns
that phase and what follows it.
"""

import ast
import functools
import hashlib
import importlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from components.shared.contracts.documents import read_object
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_REGISTRY = "streetvision"
# Of the reference grammar of images, without the part after the last name.
_REGISTRY = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
    r"(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
)
_LONGEST_REGISTRY = 200
# Digest of each image that was pushed, by its reference; in version control it is a team's.
PUSHED = ROOT / "images/pushed.json"
# What the images of each kind are built from, besides the sources.
BUILD_FILES = {
    "cpu": ("images/Dockerfile", "locks/installer.txt", "locks/image-cpu.txt"),
    "trainer": (
        "images/Dockerfile",
        "locks/installer.txt",
        "locks/torch.txt",
        "locks/cuda.txt",
        "locks/image-trainer.txt",
    ),
    "server": ("images/Dockerfile", "locks/installer.txt", "locks/image-server.txt"),
}
# The server of bundles: no phase, but built as one. Its image's program, below components/.
SERVER = "server"
_SERVER_PROGRAM = "shared/serving/server/__main__.py"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def registry_of(given: str = "") -> str:
    """Return the prefix of the images' names: `given`, the environment's, or the default.

    Raises ConfigError for one that no image's name can begin with.
    """
    registry = given or os.environ.get(Variable.REGISTRY) or DEFAULT_REGISTRY
    if not _REGISTRY.fullmatch(registry) or len(registry) > _LONGEST_REGISTRY:
        origin = "--registry" if given else str(Variable.REGISTRY)
        raise ConfigError(
            f"{origin}={shown(registry)} must be host[:port]/path in lower case, such as"
            " registry.example.com/streetvision"
        )
    return registry


def commit() -> str:
    """Return the commit that is checked out here; empty where the code is no repository."""
    return _git("rev-parse", "HEAD") or ""


@functools.cache
def code_commit() -> str:
    """Return the last commit that changed what images are built from; empty where none is known.

    Later commits leave the compiled pipeline, and so its version, as it is. Where a file differs
    from the commit, the commit is not what runs, and none is named.
    """
    folders = ("--", "components", "images", "locks")
    changed = _git("status", "--porcelain", *folders)
    return (_git("log", "-1", "--format=%H", *folders) or "") if changed == "" else ""


def phase_image(phase: str, registry: str = DEFAULT_REGISTRY) -> str:
    """Return the image of a phase, by its digest where it was pushed, otherwise by its tag.

    Its kind is the `base_image` of the phase's component.
    """
    return pinned(reference(kind_of(phase), phase, registry=registry), pushed_digests())


def pushed_images(registry: str = DEFAULT_REGISTRY) -> dict[str, str]:
    """Return the images of all phases that were pushed, by phase; each names its digest."""
    digests = pushed_digests()
    if not digests:
        return {}
    tagged = {phase: reference(kind_of(phase), phase, registry=registry) for phase in phases()}
    return {phase: pinned(name, digests) for phase, name in tagged.items() if name in digests}


def pinned(tagged: str, digests: Mapping[str, str]) -> str:
    """Return `<reference>@<digest>` of a pushed image, which nobody can replace; else the tag."""
    return f"{tagged}@{digests[tagged]}" if tagged in digests else tagged


def pushed_digests() -> dict[str, str]:
    """Return the digests of the images that were pushed, by reference.

    Raises ConfigError for a record that is damaged.
    """
    if not PUSHED.exists():
        return {}

    digests = read_object(PUSHED, dict[str, str], error=ConfigError)
    for name, digest in digests.items():
        if not _DIGEST.fullmatch(digest):
            raise ConfigError(
                f"{PUSHED}: {shown(name)} has {shown(digest)}, must be sha256: and 64 hex digits"
            )

    return digests


def record_pushed(tagged: str, digest: str) -> None:
    """Record what the registry holds under a name."""
    digests = {**pushed_digests(), tagged: digest}
    PUSHED.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@functools.cache
def kind_of(phase: str) -> str:
    """Kind of a phase's image, "cpu" or "trainer"; that of the server is "server"."""
    if phase == SERVER:
        return SERVER
    component = getattr(importlib.import_module(f"components.{phase}.component"), phase)
    return str(component.component_spec.implementation.container.image).rpartition("/")[2]


def phases() -> list[str]:
    """Names of all phases, sorted."""
    files = sorted((ROOT / "components").glob("*/component.py"))
    return [file.parent.name for file in files if file.parent.name != "shared"]


def reference(kind: str, phase: str, root: Path = ROOT, *, registry: str = DEFAULT_REGISTRY) -> str:
    """Return the image's reference, `<registry>/<kind>:<phase>-src-<digest>`.

    The digest has 16 hex characters and covers everything that enters the image.
    """
    return f"{registry}/{kind}:{phase}-src-{source_digest(kind, phase, root)}"


def source_digest(kind: str, phase: str, root: Path = ROOT) -> str:
    """Return the digest of a phase's modules, locks and Dockerfile, 16 hex digits."""
    build = {root / name for name in BUILD_FILES[kind]}
    digest = hashlib.sha256()
    for file in sorted({*build, *phase_sources(phase, root)}):
        digest.update(
            file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0"
        )
    return digest.hexdigest()[:16]


def phase_sources(phase: str, root: Path = ROOT) -> list[Path]:
    """Files of `components/` that a phase's component or the server reaches, sorted.

    Imports count wherever they stand, and so do strings that are a module's name: torchrun is
    handed one. A package comes with its `__init__.py` and its files that are no Python.
    """
    top = root / "components"
    modules = _modules(top)
    found: set[Path] = set()
    waiting = [top / (_SERVER_PROGRAM if phase == SERVER else f"{phase}/component.py")]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue

        found.add(file)
        names = _mentioned(file.read_bytes())
        waiting += [modules[name] for name in names if name in modules]

    folders = {top}

    for file in found:
        folder = file.parent
        while folder not in folders:
            folders.add(folder)
            folder = folder.parent

    found |= {file for folder in folders for file in folder.iterdir() if _belongs(file)}

    return sorted(found)


def _belongs(file: Path) -> bool:
    """Whether a file of a package is part of the image; pages for readers are not."""
    return file.is_file() and (
        file.name == "__init__.py" or file.suffix not in (".py", ".pyc", ".md")
    )


def _modules(top: Path) -> dict[str, Path]:
    """Return the file of each module below a folder, by the module's dotted name."""
    names = {}
    for folder, _, files in os.walk(top):
        package = ".".join((top.name, *Path(folder).relative_to(top).parts))
        for file in files:
            if file == "__init__.py":
                names[package] = Path(folder, file)
            elif file.endswith(".py"):
                names[f"{package}.{file.removesuffix('.py')}"] = Path(folder, file)

    return names


@functools.cache
def _mentioned(source: bytes) -> frozenset[str]:
    """Dotted names below `components` that a module imports or names in a string."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)

    return frozenset(name for name in names if name.startswith("components."))


def _git(*arguments: str) -> str | None:
    """Return what git prints about the project's folder; None where it cannot say."""
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None
