"""Transfer of local files to the object store: parallel, resumable and verified.

What the store holds already with the same digest is not sent again, so that a second call continues
an interrupted one.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

from components.shared.contracts.errors import DataError, one_line
from components.shared.contracts.listing import first_of
from components.shared.storage import Store, StoredObject
from components.shared.storage.client import DIGEST
from components.shared.storage.errors import DigestMismatchError, ObjectNotFoundError
from pipelines.ownership import scratch
from pipelines.upload_data.digests import FileDigests, digests_of
from pipelines.upload_data.selection import LocalFile, is_table

T = TypeVar("T")
R = TypeVar("R")

N_WORKERS = 8  # as many connections as `RetryingPool` keeps
_NAMED = 3
_LOG_INTERVAL_SECONDS = 10.0  # in a log file every refresh is a new line


@dataclass(frozen=True)
class Transferred:
    """What a transfer did, in files.

    Sent_bytes: bytes of those that were sent. stale: objects that stayed although the folder has no
    such file.
    """

    n_sent: int
    n_kept: int
    n_deleted: int
    sent_bytes: int
    stale: tuple[str, ...]


class _StoppedError(Exception):
    """Ends an upload in another thread; whatever stopped it is raised in the main one."""


def transfer(
    store: Store,
    files: Iterable[LocalFile],
    bucket: str,
    prefix: str,
    *,
    delete: bool = False,
    quiet: bool = False,
) -> Transferred:
    """Make `prefix`/ hold `files`, and with `delete` nothing else.

    Without `delete` other objects stay: an address is easily mistyped, and others may have put them
    there. Files by which steps find a data set or a backbone are sent last. Raises DataError where
    `delete` is not set and other objects below `prefix` would be read too, or where a file cannot
    be read,
    DigestMismatchError where the store has other bytes than were sent, and the store's errors.
    KeyboardInterrupt leaves whole objects only.
    """
    task = _Transfer(store, bucket, prefix.strip("/") + "/", quiet)
    wanted = {task.prefix + file.name: file for file in sorted(files)}
    held = {item.key: item for item in store.list(bucket, task.prefix)}
    stale = sorted(held.keys() - wanted.keys())

    if not delete:
        names = [key.removeprefix(task.prefix) for key in stale]
        has_table = any(is_table(file.name) for file in wanted.values())
        _refuse_read_too(f"s3://{bucket}/{task.prefix}", names, tables_only=has_table)

    kept = task.same(wanted, held)
    missing = [file for key, file in wanted.items() if key not in kept]
    sent_bytes = task.send(missing)

    for key in stale if delete else ():
        store.delete(bucket, key)
    left = () if delete else tuple(key.removeprefix(task.prefix) for key in stale)

    return Transferred(len(missing), len(kept), len(stale) if delete else 0, sent_bytes, left)


def holds(store: Store, files: Iterable[LocalFile], bucket: str, prefix: str) -> bool:
    """Return whether `prefix`/ holds exactly these files already; nothing is sent or removed.

    Raises DataError where a file cannot be read, and the store's errors.
    """
    task = _Transfer(store, bucket, prefix.strip("/") + "/", quiet=True)
    wanted = {task.prefix + file.name: file for file in files}
    held = {item.key: item for item in store.list(bucket, task.prefix)}

    return wanted.keys() == held.keys() and task.same(wanted, held) == wanted.keys()


class _Transfer:
    """The threads of one transfer, and what they share."""

    def __init__(self, store: Store, bucket: str, prefix: str, quiet: bool) -> None:
        self.prefix = prefix
        self._store, self._bucket, self._quiet = store, bucket, quiet
        self._stopped, self._lock = threading.Event(), threading.Lock()

    def same(self, wanted: dict[str, LocalFile], held: dict[str, StoredObject]) -> set[str]:
        """Keys of the files whose bytes the store holds already."""
        alike = [key for key, file in wanted.items() if key in held and held[key].size == file.size]
        with self._bar("comparing", sum(wanted[key].size for key in alike)) as advance:

            def compare(key: str) -> bool:
                with _readable(wanted[key]):
                    digests = digests_of(wanted[key].path)
                advance(wanted[key].size)
                return digests.etag == held[key].etag or self._recorded(key) == digests.sha256

            equal = self._run(compare, alike)

        return {key for key, same in zip(alike, equal, strict=True) if same}

    def send(self, files: list[LocalFile]) -> int:
        """Upload and verify the files; returns their size in bytes."""
        with self._bar("uploading", sum(file.size for file in files)) as advance:

            def upload(file: LocalFile) -> None:
                self._upload(file, advance)

            # A folder is no data set before its table is there.
            for last in (False, True):
                self._run(upload, [file for file in files if is_table(file.name) == last])

        return sum(file.size for file in files)

    def _upload(self, file: LocalFile, advance: Callable[[int], None]) -> None:
        def read(n_bytes: int) -> None:
            if self._stopped.is_set():
                raise _StoppedError
            advance(n_bytes)

        with _readable(file):
            digests = digests_of(file.path)
            etag = self._store.put(
                self._bucket,
                self.prefix + file.name,
                file.path,
                sha256=digests.sha256,
                on_read=read,
            )

        if etag != digests.etag:
            self._verify(file, digests)

    def _verify(self, file: LocalFile, digests: FileDigests) -> None:
        """Read back an object whose ETag is no MD5 of its parts.

        A key service that encrypts the object has this effect.
        """
        key = self.prefix + file.name
        try:
            with scratch("upload") as folder:
                self._store.get_verified(self._bucket, key, folder / "object", digests.sha256)
        except DigestMismatchError as error:
            self._store.delete(self._bucket, key)
            raise DigestMismatchError(f"{error}; run the command again") from None

    def _recorded(self, key: str) -> str:
        """The SHA-256 that an earlier transfer left with the object.

        "" where another tool wrote it.
        """
        try:
            return self._store.metadata(self._bucket, key).get(DIGEST, "")
        except ObjectNotFoundError:
            return ""

    def _run(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Return work(item) of every item, by threads.

        After an error or Ctrl-C no thread begins another file.
        """
        futures: list[Future[R]] = []
        with ThreadPoolExecutor(N_WORKERS) as pool:
            try:
                futures += [pool.submit(work, item) for item in items]
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

        return [future.result() for future in futures]

    @contextlib.contextmanager
    def _bar(self, description: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
        terminal = sys.stderr.isatty()
        interval = 0.1 if terminal else _LOG_INTERVAL_SECONDS
        with tqdm(
            desc=description,
            total=n_bytes,
            unit="B",
            unit_scale=True,
            mininterval=interval,
            ascii=not terminal,
            disable=self._quiet or not n_bytes,
        ) as bar:

            def advance(done: int) -> None:
                with self._lock:
                    bar.update(done)

            yield advance


@contextlib.contextmanager
def _readable(file: LocalFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{file.path}: cannot be read ({one_line(error)}); did it change meanwhile?"
        ) from error


def _refuse_read_too(address: str, stale: list[str], *, tables_only: bool) -> None:
    """Refuse other files at the address that the steps would read with the new ones.

    Beside a table these are other tables and weights; where folders are the classes, every file.
    """
    read_too = [name for name in stale if is_table(name)] if tables_only else stale
    if read_too:
        raise DataError(
            f"{address}: holds {first_of(read_too, most=_NAMED)}, not in the folder, which a run"
            " would read too; add --delete to remove what the folder does not have, or give"
            " another address"
        )
