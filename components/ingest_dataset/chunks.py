"""Chunks of checked images: what an ingest that is started again does not decode again.

Files are checked in the order of the listing, a quarter of a gigabyte of pixels at a time. Each
finished chunk is an artifact of its own, in a folder that is named after the inputs, and in the
store where `STREETVISION_CHECKPOINT_STORE` names one: an attempt that is killed loses the chunk
that it was at. Once the output is written, all of them are removed.
"""

import contextlib
import fcntl
import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from components.ingest_dataset.config import PartConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import (
    code_version,
    verify_dir,
    working,
    write_json,
    writing,
)
from components.shared.contracts.config import digest
from components.shared.contracts.disk import reserve
from components.shared.contracts.documents import read_object
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ArtifactError,
    PermanentError,
    StreetVisionError,
    one_line,
)
from components.shared.contracts.listing import say
from components.shared.data.arrays import load_array

if TYPE_CHECKING:
    from components.shared.storage import Store

FILES = ("descriptions.json", "hashes.npy", "pixels.npy")
_DESCRIPTIONS, _HASHES, _PIXELS = FILES
_CHUNK_BYTES = 256 << 20  # of pixels: what an attempt holds in memory, and loses at most
_MOST_ROWS = 2048


@dataclass(frozen=True)
class Description:
    """What is known of a file after it was read.

    reason: why it is refused; empty for usable files. sha256: of its bytes; empty for refused ones.
    brightness and sharpness: of its pixels, see `appearance`; None for refused files. The others
    are those of its record.
    """

    source: str
    path: str
    label: str
    group: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    reason: str = ""
    brightness: float | None = None
    sharpness: float | None = None


@dataclass(frozen=True)
class Chunk:
    """Checked files in the order of the listing.

    hashes: (n,) uint64 perceptual hashes, and pixels: n images (S, S, 3) uint8, of the n usable
    ones, in the same order.
    """

    descriptions: list[Description]
    hashes: npt.NDArray[np.uint64]
    pixels: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]

    @classmethod
    def read(cls, path: Path, image_size: int) -> Self:
        """Map a chunk whose files were verified; raises ArtifactError where they are none."""
        descriptions = read_object(path / _DESCRIPTIONS, list[Description])
        n_usable = sum(not item.reason for item in descriptions)
        hashes = load_array(path / _HASHES, np.uint64, (n_usable,))
        shape = (n_usable, image_size, image_size, 3)
        return cls(descriptions, hashes, load_array(path / _PIXELS, np.uint8, shape, mapped=True))

    def write(self, directory: Path, image_size: int) -> None:
        """Write the three files; raises OSError where the disk is full."""
        write_json(directory / _DESCRIPTIONS, [asdict(item) for item in self.descriptions])
        np.save(directory / _HASHES, self.hashes)
        shape = (len(self.pixels), image_size, image_size, 3)
        if not len(self.pixels):
            np.save(directory / _PIXELS, np.empty(shape, dtype=np.uint8))
            return

        file = directory / _PIXELS
        stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        reserve(file)
        for row, image in enumerate(self.pixels):
            stored[row] = image
        stored.flush()


def rows_of_chunk(image_size: int) -> int:
    """Return how many files a chunk has."""
    return max(min(_CHUNK_BYTES // (3 * image_size**2), _MOST_ROWS), 1)


def chunk_name(number: int) -> str:
    """Return the name of a chunk's folder."""
    return f"chunk-{number:06d}"


class ChunkFolder:
    """Finished chunks below a folder and, where there is one, in the store."""

    def __init__(
        self, path: Path, config: PartConfig, remote: "_RemoteChunks | None" = None
    ) -> None:
        """Take what is there; the folder exists."""
        self._path, self._config, self._remote = path, config, remote
        self._upload: Thread | None = None  # one, beside the decoding of the next chunk

    def find(self, number: int) -> Path | None:
        """Return a chunk that an earlier attempt finished, verified; None where there is none."""
        path = self._path / chunk_name(number)
        if not path.exists() and self._remote is not None:
            self._remote.fetch(path)
        if not path.exists():
            return None

        try:
            verify_dir(path, Kind.IMAGE_PART)
            Chunk.read(path, self._config.image_size)
        except ArtifactError as error:
            say(f"warning: damaged chunk is checked again: {one_line(error)}")
            shutil.rmtree(path)
            return None
        return path

    def add(self, number: int, chunk: Chunk) -> Path:
        """Write a chunk, and send it to the store while the next one is decoded."""
        path = self._path / chunk_name(number)
        with writing(path, kind=Kind.IMAGE_PART, step="ingest_dataset", config=self._config) as out:
            chunk.write(out, self._config.image_size)

        self.settle()
        if self._remote is not None:
            self._upload = Thread(target=self._remote.put, args=[path])
            self._upload.start()
        return path

    def settle(self) -> None:
        """Wait for the upload under way."""
        if self._upload is not None:
            self._upload.join()
            self._upload = None

    def discard(self) -> None:
        """Remove all chunks, here and in the store."""
        self.settle()
        if self._remote is not None:
            self._remote.discard()
        shutil.rmtree(self._path, ignore_errors=True)
        with contextlib.suppress(OSError):  # what others keep is there
            self._path.parent.rmdir()


@contextlib.contextmanager
def resumable(config: PartConfig, output: Path) -> Iterator[ChunkFolder]:
    """Yield the chunks that earlier attempts with the same inputs have finished.

    They are found by the fingerprint of the sources; without one, and where another process on this
    machine does the same, the chunks are in a working folder of this attempt. They are removed at
    the end, and after a permanent error; after anything else they stay for the next attempt.
    """
    directory = _directory(config, output)
    if directory is None:
        with working(output) as apart:
            yield ChunkFolder(apart, config)
        return

    with _locked(directory) as alone:
        if not alone:
            say(f"{directory} is in use or cannot be locked; this attempt keeps its chunks apart")
            with working(output) as apart:
                yield ChunkFolder(apart, config)
            return

        chunks = ChunkFolder(directory, config, _RemoteChunks.of_environment(directory.name))
        try:
            yield chunks
        except PermanentError:
            chunks.discard()
            raise
        chunks.discard()


def _directory(config: PartConfig, output: Path) -> Path | None:
    """Return the folder of the chunks; None where nothing says what the sources hold."""
    if not config.source_fingerprint:
        return None
    versions = [code_version(), importlib.metadata.version("pillow")]
    key = digest(["ingest_dataset", config.to_json(), versions])[:32]
    root = os.environ.get(Variable.CHECKPOINTS)
    return (Path(root) if root else output.parent / ".checkpoints").absolute() / key


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Make and lock the folder; yield False where another process has it, or none can lock it."""
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context((directory / "lock").open("w", encoding="utf-8"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        yield locked


class _RemoteChunks:
    """The chunks of one ingest in the store, which an ingest can do without: errors are warnings.

    Two pods with the same inputs write the same bytes.
    """

    def __init__(self, store: "Store", uri: str, key: str) -> None:
        from components.shared.storage import split_uri

        self._store = store
        self._bucket, prefix = split_uri(uri)
        self._prefix = "/".join([*filter(None, [prefix.strip("/")]), "ingest", key])
        self._lost = False

    @classmethod
    def of_environment(cls, key: str) -> Self | None:
        """Return the chunks below STREETVISION_CHECKPOINT_STORE; None where it is not set."""
        uri = os.environ.get(Variable.CHECKPOINT_STORE)
        if not uri:
            return None
        from components.shared.storage import Store

        return cls(Store.from_environment(), uri, key)

    def fetch(self, path: Path) -> None:
        """Download a chunk to `path`, if the store has it."""
        from components.shared.storage.artifacts import download_artifact
        from components.shared.storage.errors import ObjectNotFoundError

        def fetch() -> None:
            prefix = f"{self._prefix}/{path.name}"
            with contextlib.suppress(ObjectNotFoundError):
                download_artifact(self._store, self._bucket, prefix, path, kind=Kind.IMAGE_PART)

        self._try(fetch, "has no chunk for this attempt")

    def put(self, path: Path) -> None:
        """Upload a chunk."""
        from components.shared.storage.artifacts import upload_artifact

        def put() -> None:
            prefix = f"{self._prefix}/{path.name}"
            upload_artifact(self._store, path, self._bucket, prefix, kind=Kind.IMAGE_PART)

        self._try(put, "does not protect this ingest")

    def discard(self) -> None:
        """Remove all chunks; manifests go first, without which a chunk does not exist."""

        def discard() -> None:
            keys = [item.key for item in self._store.list(self._bucket, f"{self._prefix}/")]
            for key in sorted(keys, key=lambda key: not key.endswith("/manifest.json")):
                self._store.delete(self._bucket, key)

        self._try(discard, "keeps chunks that are no longer needed")

    def _try(self, call: Callable[[], None], consequence: str) -> None:
        """Call, and after the first error, which is a warning, never again."""
        if self._lost:
            return
        try:
            call()
        except StreetVisionError as error:
            self._lost = True
            say(f"warning: the store {consequence}: {one_line(error)}")
