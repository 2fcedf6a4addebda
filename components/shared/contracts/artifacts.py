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
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.config import Config, canonical_json
from components.shared.contracts.documents import as_type, parse_json, read_bytes
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.machine import n_usable_cores

T = TypeVar("T")

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# Who made a bundle and of what. Both speak about its manifest, which therefore cannot list them,
# and its content digest does not depend on them.
SIGNATURE, PROVENANCE = "model.sig", "provenance.json"
_BESIDE_MANIFEST: dict[str, tuple[str, ...]] = {Kind.BUNDLE: (PROVENANCE, SIGNATURE)}
ANY_SPLIT = "*"  # for code that only copies artifacts
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 1024  # bytes, as object stores allow
_MOST_HASHING = 8  # threads; about 8 GB/s, more than disks of training nodes deliver
_BLOCK_BYTES = 2**20
# Folder -> digest of the manifest of an artifact whose files need not be hashed again.
_verified: ContextVar[Mapping[Path, str]] = ContextVar("verified")


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

    @property
    def digest(self) -> str:
        """Return the SHA-256 over all fields, and so over every file, 64 hex characters."""
        return _sha256_text(canonical_json(dataclasses.asdict(self)))

    def to_json(self) -> dict[str, Any]:
        """The document on disk: all fields, plus a digest that reveals an edited manifest."""
        return {**dataclasses.asdict(self), "manifest_digest": self.digest}


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
    attest: Callable[[Path, Manifest], None] | None = None,
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
        attest: Writes the files of `beside_manifest` into the staging directory, once the manifest
            is there.

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
        if attest is not None:
            attest(staging, manifest)
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


def beside_manifest(kind: str) -> tuple[str, ...]:
    """Return the files that an artifact of a kind may have without an entry in its manifest."""
    return _BESIDE_MANIFEST.get(kind, ())


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


@contextlib.contextmanager
def trusting(verified: Mapping[Path, str]) -> Iterator[None]:
    """Make `verify_dir` hash no file of the artifacts in `verified`, inside the context.

    A step verifies its inputs once; its ranks, which read the same files on the same machine, only
    check that the manifest is the one that the step verified, and the files' names and sizes. Who
    can change a file in between can change the ranks' code as well.

    Args:
        verified: folder of an artifact -> `Manifest.digest` of what was verified there.
    """
    token = _verified.set({path.absolute(): digest for path, digest in verified.items()})
    try:
        yield
    finally:
        _verified.reset(token)


def verify_dir(path: Path, kind: str, *, split: str | None = None, hashed: bool = True) -> Manifest:
    """Check `path` against its manifest and the expected kind and split.

    The files are hashed in threads, unless `trusting` names the artifact.

    Args:
        path: The artifact.
        kind: The expected kind.
        split: The expected split; None where the kind belongs to no split.
        hashed: False leaves the files' content to who reads them next, and compares digests.

    Raises:
        LeakageViolationError: Another split.
        ArtifactError: Every other difference is listed: missing, extra and changed files, symbolic
            links, special files, empty directories, edited manifest, wrong kind or schema version.
    """
    manifest = read_manifest(path)
    if split not in (None, ANY_SPLIT, manifest.split):
        raise LeakageViolationError(
            f"{path}: holds split {shown(manifest.split)}, this step may only see {split!r}"
        )

    if manifest.kind != kind:
        raise ArtifactError(
            f"{path}: kind is {shown(manifest.kind)}, this step needs {str(kind)!r}"
        )
    if split is None and manifest.split is not None:
        raise LeakageViolationError(
            f"{path}: holds split {shown(manifest.split)}, a {kind} belongs to none"
        )

    differences = _differences(path, manifest, hashed=hashed and not _is_trusted(path, manifest))
    if differences:
        raise ArtifactError(
            f"{path}: {len(differences)} difference(s) from its manifest:"
            f" {first_of(differences, separator='; ')}"
        )

    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of `path`, itself checked but not its files. Raises ArtifactError."""
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise ArtifactError(
            f"{path}: no {MANIFEST}; the artifact is incomplete or the path is wrong"
        )
    return parse_manifest(read_bytes(file), str(file))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return the manifest in a document's bytes; `where` is its name in messages.

    Raises ArtifactError for any other document: another schema, edited after it was written, fields
    of wrong types, or files whose names leave the artifact.
    """
    document = parse_json(data, where)

    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{where}: schema_version is {shown(version)}, this code reads {SCHEMA_VERSION}; rerun"
            " the step"
        )

    recorded = document.pop("manifest_digest", None)
    if recorded != _sha256_text(canonical_json(document)):
        raise ArtifactError(
            f"{where}: edited after it was written (manifest_digest does not match)"
        )

    manifest = as_type(document, Manifest, where)
    problems = [
        f"{shown(name)}: {problem}"
        for name, entry in manifest.files.items()
        if (problem := file_name_problem(name) or _entry_problem(entry))
    ]
    if problems:
        raise ArtifactError(f"{where}: {first_of(problems, separator='; ')}")

    return manifest


def file_name_problem(name: str) -> str:
    """Return why `name` cannot name a file below an artifact's directory; empty where it can.

    It is a relative POSIX path of printable characters that stays below the directory.
    """
    if not name.isprintable() or "\\" in name:
        return "has a control character or a backslash"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "leaves the artifact, or has an empty part"
    if len(name.encode()) > _LONGEST_NAME:
        return f"is longer than {_LONGEST_NAME} bytes"
    return "" if name != MANIFEST else "cannot list itself"


def _entry_problem(entry: Mapping[str, Any]) -> str:
    """Return what is wrong with a file's entry in a manifest; empty where nothing is."""
    size, digest = entry.get("bytes"), entry.get("sha256")
    if entry.keys() != {"bytes", "sha256"}:
        return f"has {shown(sorted(entry))} instead of bytes and sha256"
    if type(size) is not int or size < 0:
        return f"bytes={shown(size)} must be an integer >= 0"
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        return f"sha256={shown(digest)} must be 64 hexadecimal digits"
    return ""


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
    return _sha256_unless(path, threading.Event())


def _sha256_unless(path: Path, stopped: threading.Event) -> str:
    """Return the hex SHA-256 of a file's bytes, or an empty text once `stopped` is set."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as stream:
        while n_read := stream.readinto(block):
            digest.update(block[:n_read])
            if stopped.is_set():
                return ""
    return digest.hexdigest()


def _in_threads(hashed: Callable[[T, threading.Event], str], items: Sequence[T]) -> list[str]:
    """Return what `hashed` returns of every item, in order.

    hashlib computes without the GIL. A thread needs one block of memory; where the caller is
    interrupted, all end within a block.
    """
    n_threads = min(n_usable_cores(), len(items), _MOST_HASHING)
    stopped = threading.Event()
    if n_threads < 2:
        return [hashed(item, stopped) for item in items]

    with ThreadPoolExecutor(n_threads, "hash") as pool:
        try:
            return list(pool.map(hashed, items, [stopped] * len(items)))
        finally:
            stopped.set()


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


def _is_trusted(path: Path, manifest: Manifest) -> bool:
    """Whether `trusting` names the artifact. Raises ArtifactError for another artifact there."""
    expected = _verified.get({}).get(path.absolute())
    if expected is not None and manifest.digest != expected:
        raise ArtifactError(
            f"{path}: is not the artifact that this step verified (manifest_digest"
            f" {manifest.digest[:12]}..., expected {expected[:12]}...); run the step again"
        )
    return expected is not None


def _differences(path: Path, manifest: Manifest, *, hashed: bool) -> list[str]:
    found, differences = _entries(path)
    del found[MANIFEST]
    for name in beside_manifest(manifest.kind):
        if name not in manifest.files and stat.S_ISREG(getattr(found.get(name), "st_mode", 0)):
            del found[name]

    links = {name for name, status in found.items() if stat.S_ISLNK(status.st_mode)}
    differences += [f"{name}: symbolic link refused" for name in sorted(links)]
    differences += [f"{name}: missing" for name in sorted(manifest.files.keys() - found.keys())]
    differences += [
        f"{name}: not in the manifest"
        for name in sorted(found.keys() - manifest.files.keys() - links)
    ]

    def difference(name: str, stopped: threading.Event) -> str:
        entry = manifest.files[name]
        of_inode = _inode_difference(found[name], entry)
        return of_inode or (_content_difference(path / name, entry, stopped) if hashed else "")

    names = sorted((manifest.files.keys() & found.keys()) - links)
    in_files = zip(names, _in_threads(difference, names), strict=True)

    return differences + [f"{name}: {problem}" for name, problem in in_files if problem]


def _inode_difference(status: os.stat_result, expected: Mapping[str, Any]) -> str:
    """Return how a listed file's type or size differs from its entry; empty where neither does."""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size != expected["bytes"]:
        return f"{status.st_size} bytes, expected {expected['bytes']}"
    return ""


def _content_difference(file: Path, expected: Mapping[str, Any], stopped: threading.Event) -> str:
    """Return how a file's digest differs from its entry; empty where it does not."""
    try:
        actual = _sha256_unless(file, stopped)
    except PermissionError as error:
        return f"cannot be read ({error.strerror})"
    if actual != expected["sha256"]:
        return f"sha256 {actual[:12]}..., expected {expected['sha256'][:12]}..."
    return ""


def _entries(root: Path) -> tuple[dict[str, os.stat_result], list[str]]:
    """Return all entries below `root` but directories, by name, and the directories' problems.

    No link is followed; a link to a directory is an entry. An empty directory is a problem: nothing
    in the manifest accounts for it.
    """
    found: dict[str, os.stat_result] = {}
    problems: list[str] = []
    waiting = [""]

    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                listed = list(entries)
        except OSError as error:
            problems.append(f"{folder or '.'}: cannot be listed ({error.strerror})")
            continue

        if folder and not listed:
            problems.append(f"{folder}: empty directory, not in the manifest")
        for entry in listed:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            else:
                found[name] = entry.stat(follow_symlinks=False)

    return found, sorted(problems)


def _hash_files(root: Path) -> dict[str, dict[str, Any]]:
    files = sorted(entry for entry in root.rglob("*") if entry.is_file())
    digests = _in_threads(_sha256_unless, files)
    return {
        file.relative_to(root).as_posix(): {"sha256": digest, "bytes": file.stat().st_size}
        for file, digest in zip(files, digests, strict=True)
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
