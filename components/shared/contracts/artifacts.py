"""Artifact directories: written in one piece, and verified against their manifest.

Every artifact is a directory with a `manifest.json` written last. `writing()` stages the files
beside the final path and renames at the end, so that a reader never meets half an artifact;
`verify_dir()` lists every difference.

Own code, because no library of the project writes a directory atomically and verifies kind, split
and every file of it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.shared.contracts.config import Config, canonical_json
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.contracts.listing import first_of

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
ANY_SPLIT = "*"  # for code that only copies artifacts
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755


@dataclass(frozen=True)
class Manifest:
    """Content of `manifest.json`.

    `files` maps POSIX relative paths to {"sha256": hex, "bytes": int}.
    """

    kind: str
    step: str
    code_version: str
    config: dict[str, Any]
    config_digest: str
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    split: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def content_digest(self) -> str:
        """Return the SHA-256 over kind, split and file digests.

        Equal content has an equal digest, whichever code produced it.
        """
        return _sha256_text(canonical_json([self.kind, self.split, self.files]))

    def to_json(self) -> dict[str, Any]:
        """The document on disk: all fields, plus a digest that reveals an edited manifest."""
        document = dataclasses.asdict(self)
        return {**document, "manifest_digest": _sha256_text(canonical_json(document))}


@contextlib.contextmanager
def writing(
    path: Path,
    *,
    kind: str,
    step: str,
    config: Config,
    inputs: Mapping[str, Manifest | str] | None = None,
    split: str | None = None,
    summary: dict[str, Any] | None = None,
) -> Iterator[Path]:
    """Yield a staging directory that becomes the artifact at `path` on success.

    The files are hashed, the manifest is written last, everything is made readable for other users
    (`make_readable`), and the directory is renamed to `path`.

    Args:
        path: Final directory; an artifact that is there is replaced.
        kind: Kind of the artifact.
        step: The phase that writes it.
        config: The phase's configuration.
        inputs: The artifacts it is made from, as manifests or as content digests that another
            manifest recorded.
        split: Data split that it belongs to, if any.
        summary: Facts for readers of the manifest; the caller may fill it while writing.

    Yields:
        The staging directory. On an exception nothing appears at `path`.
    """
    staging = path.with_name(f".{path.name}.partial")
    replaced = path.with_name(f".{path.name}.replaced")
    for leftover in (staging, replaced):
        shutil.rmtree(leftover, ignore_errors=True)

    staging.mkdir(parents=True)

    try:
        yield staging

        manifest = Manifest(
            kind=str(kind),
            step=step,
            code_version=code_version(),
            config=config.to_json(),
            config_digest=config.digest(),
            inputs={name: _content_digest(value) for name, value in sorted((inputs or {}).items())},
            files=_hash_files(staging),
            split=split,
            summary=summary or {},
        )

        # Last of all files: a directory with a manifest is complete.
        write_json(staging / MANIFEST, manifest.to_json())
        make_readable(staging)
        _fsync_tree(staging)
        # Never two halves at `path`: the old artifact leaves whole before the new one comes.
        if path.exists():
            path.replace(replaced)
        staging.replace(path)
        _fsync_directory(path.parent)
    finally:
        for leftover in (staging, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


def make_readable(directory: Path) -> None:
    """Give files the mode 0644 and folders 0755, whatever umask and library they were written with.

    safetensors writes 0600, so that a server of another user could not read a model. Symbolic links
    stay as they are, and so do the modes of a file system that has none of its own (exFAT).
    """
    for entry in (directory, *directory.rglob("*")):
        if not entry.is_symlink():
            with contextlib.suppress(PermissionError):
                entry.chmod(_FOLDER_MODE if entry.is_dir() else _FILE_MODE)


@contextlib.contextmanager
def working(path: Path) -> Iterator[Path]:
    """Yield an empty hidden directory beside `path`, which is removed afterwards.

    It holds what is needed until `path` is written. Its name is always the same, so that what a
    killed attempt left there goes too.
    """
    work = path.with_name(f".{path.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def verify_dir(path: Path, kind: str, *, split: str | None = None) -> Manifest:
    """Check `path` against its manifest and the expected kind and split.

    `split`: None where the kind belongs to no split. Raises LeakageViolationError for a wrong
    split, ArtifactError listing every other difference (missing, extra and changed files, symbolic
    links, edited manifest, wrong kind or schema version).
    """
    manifest = read_manifest(path)
    if split not in (None, ANY_SPLIT, manifest.split):
        raise LeakageViolationError(
            f"{path}: holds split {manifest.split!r}, this step may only see {split!r}"
        )

    if manifest.kind != kind:
        raise ArtifactError(f"{path}: kind is {manifest.kind!r}, this step needs {str(kind)!r}")
    if split is None and manifest.split is not None:
        raise LeakageViolationError(
            f"{path}: holds split {manifest.split!r}, a {kind} belongs to none"
        )

    differences = _differences(path, manifest)
    if differences:
        raise ArtifactError(
            f"{path}: {len(differences)} difference(s) from its manifest:"
            f" {first_of(differences, separator='; ')}"
        )

    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of `path`, itself checked but not its files. Raises ArtifactError."""
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(
            f"{path}: no {MANIFEST}; the artifact is incomplete or the path is wrong"
        )

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file}: not valid JSON ({error})") from error

    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{file}: schema_version is {version!r}, this code reads {SCHEMA_VERSION}; rerun the"
            " step"
        )

    recorded = document.pop("manifest_digest", None)
    if recorded != _sha256_text(canonical_json(document)):
        raise ArtifactError(f"{file}: edited after it was written (manifest_digest does not match)")

    try:
        return Manifest(**document)
    except TypeError as error:
        raise ArtifactError(f"{file}: fields do not match the schema ({error})") from error


def write_json(path: Path, document: Any) -> None:
    """Write canonical, human-readable JSON through a temporary file, fsync and rename."""
    text = (
        json.dumps(document, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    )
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())

    temporary.replace(path)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def code_version() -> str:
    """Return a digest of the sources in `components/`, 16 hex characters.

    It is equal wherever the same code runs.
    """
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for source in sorted(root.rglob("*.py")):
        digest.update(
            source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes() + b"\0"
        )
    return digest.hexdigest()[:16]


def _differences(path: Path, manifest: Manifest) -> list[str]:
    found = {
        entry.relative_to(path).as_posix(): entry
        for entry in sorted(path.rglob("*"))
        if not entry.is_dir()
    }

    found.pop(MANIFEST, None)
    differences = [
        f"{name}: symbolic link refused" for name, entry in found.items() if entry.is_symlink()
    ]
    differences += [f"{name}: missing" for name in sorted(manifest.files.keys() - found.keys())]
    differences += [
        f"{name}: not in the manifest" for name in sorted(found.keys() - manifest.files.keys())
    ]

    for name in sorted(manifest.files.keys() & found.keys()):
        expected, entry = manifest.files[name], found[name]
        size = entry.stat().st_size
        if size != expected["bytes"]:
            differences.append(f"{name}: {size} bytes, expected {expected['bytes']}")
        elif (actual := sha256_file(entry)) != expected["sha256"]:
            differences.append(
                f"{name}: sha256 {actual[:12]}..., expected {expected['sha256'][:12]}..."
            )

    return differences


def _hash_files(root: Path) -> dict[str, dict[str, Any]]:
    files = sorted(entry for entry in root.rglob("*") if entry.is_file())
    return {
        file.relative_to(root).as_posix(): {
            "sha256": sha256_file(file),
            "bytes": file.stat().st_size,
        }
        for file in files
    }


def _fsync_tree(root: Path) -> None:
    for entry in sorted(root.rglob("*")):
        if entry.is_file():
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())
        else:
            _fsync_directory(entry)
    _fsync_directory(root)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content_digest(value: Manifest | str) -> str:
    return value if isinstance(value, str) else value.content_digest


def _sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
