"""Objects against a real S3 server."""

import dataclasses
import hashlib
import io
import time
from pathlib import Path

import psutil
import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.storage import Store, StoredObject, StoreSettings, split_uri
from components.shared.storage.client import PART_BYTES
from components.shared.storage.errors import (
    DigestMismatchError,
    ObjectNotFoundError,
    StoreConflictError,
    StoreRefusedError,
)
from components.shared.storage.retry import Answers
from pipelines.upload_data.digests import digests_of


@pytest.fixture
def store(s3: StoreSettings) -> Store:
    return Store(s3, deadline_seconds=10)


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 12_345])
def test_what_is_put_is_read_back_whatever_its_size(
    store: Store, bucket: str, tmp_path: Path, size: int
) -> None:
    data = hashlib.shake_128(b"seed").digest(size)
    store.put(bucket, "a/b c+ü.bin", _file(tmp_path / "up", data))
    assert store.read(bucket, "a/b c+ü.bin") == data
    store.get_verified(bucket, "a/b c+ü.bin", tmp_path / "down", hashlib.sha256(data).hexdigest())
    assert (tmp_path / "down").read_bytes() == data


def test_listing_is_sorted_below_the_prefix_and_longer_than_a_page(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    empty = _file(tmp_path / "x", b"")
    for key in ["b/2", "a/1", "b/10", "b/1", "c"]:
        store.put(bucket, key, empty)
    assert [entry.key for entry in store.list(bucket, "b/")] == ["b/1", "b/10", "b/2"]
    assert [entry.key for entry in store.list(bucket)] == ["a/1", "b/1", "b/10", "b/2", "c"]
    assert store.list(bucket, "nothing/") == []


def test_a_listing_shows_every_kind_of_change(store: Store, bucket: str, tmp_path: Path) -> None:
    def put(key: str, data: bytes) -> tuple[StoredObject, ...]:
        store.put(bucket, key, _file(tmp_path / "x", data))
        return tuple(store.list(bucket, "d/"))

    seen = [
        tuple(store.list(bucket, "d/")),
        put("d/1", b"one"),
        put("d/2", b"two"),
        put("d/2", b"TWO"),
    ]
    store.delete(bucket, "d/1")
    seen.append(tuple(store.list(bucket, "d/")))
    assert len(set(seen)) == 5
    assert put("d/1", b"one") == seen[3]
    assert put("elsewhere", b"one") == seen[3]


def test_a_wrong_digest_leaves_no_file(store: Store, bucket: str, tmp_path: Path) -> None:
    store.put(bucket, "k", _file(tmp_path / "up", b"data"))
    with pytest.raises(DigestMismatchError, match=f"{bucket}.*'k'.*sha256"):
        store.get_verified(bucket, "k", tmp_path / "down", "0" * 64)
    assert [file.name for file in tmp_path.iterdir()] == ["up"]


def test_bytes_that_differ_from_the_stored_sha256_are_not_read(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    with store._pool.operation():  # a store that lost bits: checksum and object differ
        wrong = {"sha256": hashlib.sha256(b"other").hexdigest()}
        store._client.put_object(bucket, "k", io.BytesIO(b"data"), 4, metadata=wrong)
        store._client.put_object(bucket, "foreign", io.BytesIO(b"data"), 4, metadata={"a": "b"})

    for call in (
        lambda: store.read(bucket, "k"),
        lambda: store.get(bucket, "k", tmp_path / "down"),
    ):
        with pytest.raises(DigestMismatchError, match=f"{bucket}.*'k'.*sha256"):
            call()
    assert list(tmp_path.iterdir()) == []
    assert store.read(bucket, "foreign") == b"data"


def test_only_the_version_that_was_listed_is_read(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    store.put(bucket, "k", _file(tmp_path / "up", b"data"))
    listed = store.list(bucket)[0]
    assert store.read(bucket, "k", etag=listed.etag) == b"data"

    store.put(bucket, "k", _file(tmp_path / "up", b"new"))
    with pytest.raises(StoreConflictError, match=f"{bucket}.*'k'"):
        store.read(bucket, "k", etag=listed.etag)
    with pytest.raises(StoreConflictError, match=f"{bucket}.*'k'"):
        store.get(bucket, "k", tmp_path / "down", etag=listed.etag)
    assert not (tmp_path / "down").exists()


def test_a_file_that_changes_while_it_is_sent_becomes_no_object(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    file = _file(tmp_path / "up", bytes(PART_BYTES + 10))

    def change(n_bytes: int) -> None:
        if n_bytes == PART_BYTES:
            with file.open("r+b") as stream:
                stream.seek(PART_BYTES)
                stream.write(b"changed")

    with pytest.raises(DigestMismatchError, match="changed while it was sent"):
        store.put(bucket, "k", file, on_read=change)
    assert store.list(bucket) == []


def test_what_is_missing_is_named(store: Store, s3: StoreSettings, bucket: str) -> None:
    with pytest.raises(ObjectNotFoundError, match=f"{s3.endpoint} bucket '{bucket}' key 'nope'"):
        store.read(bucket, "nope")
    for call in (
        store.list,
        store.first,
        lambda b, k: store.read(b, k),
        lambda b, k: store.put_if_absent(b, k, b""),
    ):
        with pytest.raises(StoreRefusedError, match=r"'no-such-bucket'.*NoSuchBucket.*create it"):
            call("no-such-bucket", "k")


@pytest.mark.parametrize("field", ["access_key", "secret_key"])
def test_bad_credentials_are_refused_at_once_and_not_repeated(
    s3: StoreSettings, bucket: str, field: str
) -> None:
    store = Store(dataclasses.replace(s3, **{field: "planted-wrong-credential"}))
    started = time.monotonic()
    for call in (
        lambda: store.list(bucket),
        lambda: store.read(bucket, "k"),
        lambda: store.put_if_absent(bucket, "k", b""),
    ):
        with pytest.raises(StoreRefusedError) as caught:
            call()
        text = str(caught.value)
        assert s3.endpoint in text
        assert bucket in text
        assert not any(secret in text for secret in ("planted", s3.access_key, s3.secret_key))
    assert time.monotonic() - started < 5


def test_uris_are_split_or_refused() -> None:
    assert split_uri("s3://bucket/a/b") == ("bucket", "a/b")
    assert split_uri("s3://bucket") == ("bucket", "")
    for wrong in ("bucket/a", "http://bucket/a", "s3:///a", "s3:/bucket"):
        with pytest.raises(ConfigError, match="s3://bucket/prefix"):
            split_uri(wrong)


def test_the_embedded_server_listens_on_loopback_only(s3: StoreSettings) -> None:
    servers = [
        child for child in psutil.Process().children(recursive=True) if child.name() == "weed"
    ]
    listening = [
        c.laddr for server in servers for c in server.connections("inet") if c.status == "LISTEN"
    ]
    assert int(s3.endpoint.rpartition(":")[2]) in {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_a_files_digests_are_those_that_the_store_reports(
    store: Store, bucket: str, tmp_path: Path, size: int
) -> None:
    file = _file(tmp_path / "up", hashlib.shake_128(b"digest").digest(size))
    digests = digests_of(file)
    etag = store.put(bucket, "k", file)
    assert etag == digests.etag == store.list(bucket, "k")[0].etag
    assert (
        digests.sha256
        == hashlib.sha256(file.read_bytes()).hexdigest()
        == store.metadata(bucket, "k")["sha256"]
    )


def test_an_upload_that_is_stopped_leaves_no_object_and_no_parts(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    reads: list[int] = []

    def read(n_bytes: int) -> None:
        reads.append(n_bytes)
        if len(reads) == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        store.put(bucket, "k", _file(tmp_path / "up", bytes(3 * PART_BYTES)), on_read=read)
    assert reads == [PART_BYTES, PART_BYTES]
    assert store.list(bucket) == []
    with store._pool.operation(Answers.OBJECT):
        assert store._client._list_multipart_uploads(bucket).uploads == []


def test_one_object_below_a_prefix_is_found_without_listing_all(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    file = _file(tmp_path / "up", b"data")
    for key in ("d/2", "d/1", "e"):
        store.put(bucket, key, file)
    found = store.first(bucket, "d/")
    assert found is not None
    assert (found.key, found.size) == ("d/1", 4)
    assert store.first(bucket, "nothing/") is None
    with pytest.raises(ObjectNotFoundError, match="'nothing'"):
        store.metadata(bucket, "nothing")
