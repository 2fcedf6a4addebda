"""Folders that go to a real S3 server: what arrives, what is refused, what a second call sends."""

import io
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.import_backbone.backbone_sources import copy_backbone
from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.labels import label_sources
from components.ingest_dataset.sources.open import open_source
from components.shared.contracts.errors import ConfigError, DataError, StreetVisionError
from components.shared.storage import Store, StoreSettings
from components.shared.storage.client import PART_BYTES
from components.shared.storage.errors import DigestMismatchError
from components.shared.storage.retry import Answers
from pipelines.cli.app import run_verb
from pipelines.local.store import BUCKET, LocalStore
from pipelines.upload_data.selection import files_below, select
from pipelines.upload_data.transfer import transfer
from tests.fault_proxy import fault_proxy
from tests.model_folder import CONFIG, weights

ADDRESS = "street/scenes"


@pytest.fixture
def store(s3: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The server, also in the environment, as the command line finds it."""
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    return Store(s3, deadline_seconds=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of three images."""
    root = tmp_path / "photos"
    (root / "images").mkdir(parents=True)
    for number in range(3):
        (root / f"images/{number}.jpg").write_bytes(b"jpeg %d" % number)
    (root / "labels.csv").write_text("path,label\nimages/0.jpg,0\nimages/1.jpg,1\nimages/2.jpg,1\n")
    return root


def upload(folder: Path, address: str, *options: str) -> None:
    """The command line's verb."""
    run_verb(["upload-data", str(folder), address, *options])


def held(store: Store, bucket: str) -> dict[str, bytes]:
    """Everything in the bucket."""
    return {item.key: store.read(bucket, item.key) for item in store.list(bucket)}


def test_a_data_set_arrives_whole_and_a_second_call_sends_nothing(
    store: Store, bucket: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(folder, f"s3://{bucket}/{ADDRESS}/")
    assert held(store, bucket) == {
        f"{ADDRESS}/{file.relative_to(folder)}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    printed = capsys.readouterr().out
    assert "4 files sent" in printed
    assert printed.splitlines()[-1] == f"for submit: --param data=s3://{bucket}/{ADDRESS}"
    assert len(_read(f"s3://{bucket}/{ADDRESS}")) == 3

    upload(folder, f"minio://{bucket}/{ADDRESS}")
    printed = capsys.readouterr().out
    assert "0 files sent (0.0 MB), 4 were there" in printed
    assert f"s3://{bucket}/{ADDRESS}" in printed


def _read(address: str) -> dict[str, tuple[str, bytes]]:
    """Path, class and bytes of what ingest would decode."""
    source = open_source(SourceConfig(data=address))
    records = source.records(label_sources([source], None).of_sources[0])
    return {record.path: (record.label, record.read()) for record in records}


def test_only_what_changed_is_sent_and_what_is_gone_stays_unless_asked(
    store: Store, bucket: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(folder, f"s3://{bucket}/{ADDRESS}")
    store.put(bucket, "street/scenes-of-another", folder / "labels.csv")
    (folder / "images/0.jpg").write_bytes(b"JPEG 0")  # as long as before
    (folder / "images/1.jpg").unlink()
    capsys.readouterr()

    upload(folder, f"s3://{bucket}/{ADDRESS}")
    printed = capsys.readouterr().out
    assert "1 file sent" in printed
    assert (
        "1 other object(s) stay below the address: images/1.jpg; --delete removes them" in printed
    )
    assert store.read(bucket, f"{ADDRESS}/images/0.jpg") == b"JPEG 0"
    assert f"{ADDRESS}/images/1.jpg" in held(store, bucket)

    upload(folder, f"s3://{bucket}/{ADDRESS}", "--delete")
    assert "0 files sent (0.0 MB), 3 were there, 1 removed" in capsys.readouterr().out
    assert sorted(held(store, bucket)) == [
        "street/scenes-of-another",
        f"{ADDRESS}/images/0.jpg",
        f"{ADDRESS}/images/2.jpg",
        f"{ADDRESS}/labels.csv",
    ]


def test_tables_that_a_run_would_read_too_are_refused_before_anything_is_sent(
    store: Store, bucket: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "labels.csv").unlink()
    (folder / "new.parquet").write_bytes(b"PAR1")
    store.put(bucket, f"{ADDRESS}/old.parquet", folder / "new.parquet")
    with pytest.raises(DataError, match=r"holds old\.parquet, not in the folder.*--delete"):
        upload(folder, f"s3://{bucket}/{ADDRESS}")
    assert sorted(held(store, bucket)) == [f"{ADDRESS}/old.parquet"]
    upload(folder, f"s3://{bucket}/{ADDRESS}", "--delete")
    assert f"{ADDRESS}/old.parquet" not in held(store, bucket)


def test_a_folder_per_class_is_a_data_set_and_other_images_at_the_address_are_refused(
    store: Store, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "potholes"
    for name in ("Plain/a b.jpg", "Plain/2.jpg", "Pothole/1.ppm", "Pothole/deep/er.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "Plain/.DS_Store").touch()
    (folder / "README.md").touch()
    address = f"s3://{bucket}/{ADDRESS}"
    upload(folder, address)
    assert "not sent, since no step reads it: Plain/.DS_Store, README.md" in capsys.readouterr().out
    assert _read(address) == {
        name: (name.split("/")[0], name.encode())
        for name in ("Plain/a b.jpg", "Plain/2.jpg", "Pothole/1.ppm", "Pothole/deep/er.jpg")
    }
    assert len(held(store, bucket)) == 4

    (folder / "Plain/2.jpg").unlink()
    with pytest.raises(DataError, match=r"holds Plain/2\.jpg, not in the folder.*--delete"):
        upload(folder, address)
    upload(folder, address, "--delete")
    assert len(_read(address)) == 3


Change = Callable[[Path], object]


def _link_out(folder: Path) -> None:
    (folder.parent / "secret").write_text("elsewhere")
    (folder / "images/3.jpg").symlink_to(folder.parent / "secret")


def _without_labels(folder: Path) -> None:
    (folder / "labels.csv").rename(folder / "annotations.csv")


def _labels_below(folder: Path) -> None:
    (folder / "labels.csv").rename(folder / "images/labels.csv")


def _only_pickles(folder: Path) -> None:
    (folder / "labels.csv").rename(folder / "config.json")
    (folder / "pytorch_model.bin").write_bytes(b"")


def _weights_alone(folder: Path) -> None:
    (folder / "labels.csv").rename(folder / "model.safetensors")


REFUSED: dict[str, tuple[Change, str]] = {
    "a table of another name": (
        _without_labels,
        r"has annotations\.csv but no labels\.csv; name the table labels\.csv",
    ),
    "a table in a folder below": (
        _labels_below,
        r"in a folder below \(images/labels\.csv\); give that folder",
    ),
    "neither": (
        lambda f: (f / "labels.csv").unlink(),
        r"'images' is the only folder with images.*or list all images in labels\.csv",
    ),
    "only pickles": (
        _only_pickles,
        r"no \.safetensors, only pytorch_model\.bin: a pickle runs code.*save_pretrained",
    ),
    "weights alone": (_weights_alone, r"has model\.safetensors but no config\.json"),
    "a link out of the folder": (
        _link_out,
        r"images/3\.jpg: is a link out of the folder; put the file itself there",
    ),
    "a link to a folder": (
        lambda f: (f / "more").symlink_to(f.parent),
        r"more: is a link to a folder",
    ),
    "a broken link": (lambda f: (f / "x").symlink_to("nowhere"), r"x: is not a file .*broken link"),
    "a pipe": (lambda f: os.mkfifo(f / "x"), r"x: is not a file .*not a regular file .a pipe"),
    "a link to itself": (lambda f: (f / "x").symlink_to("x"), r"x: is not a file .*Too many lev"),
    "a name that is not UTF-8": (
        lambda f: Path(os.fsdecode(os.fsencode(f) + b"/\xff")).touch(),
        "not UTF-8; rename",
    ),
    "a name too long for a key": (lambda f: _deep(f), "has 8.. bytes; at most 768 fit"),
}


def _deep(folder: Path) -> None:
    place = folder.joinpath(*["d" * 200] * 4)
    place.mkdir(parents=True)
    (place / "x").touch()


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_set_or_backbone_is_refused_before_anything_is_sent(
    store: Store, bucket: str, folder: Path, case: str
) -> None:
    change, message = REFUSED[case]
    change(folder)
    with pytest.raises(DataError, match=message) as caught:
        upload(folder, f"s3://{bucket}/{ADDRESS}")
    assert "\n" not in str(caught.value)
    assert store.list(bucket) == []


def test_places_that_cannot_be_meant_are_refused(
    store: Store, bucket: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "nowhere", tmp_path / "empty", folder / "images/0.jpg"):
        with pytest.raises(DataError, match="of a data set or of a backbone"):
            upload(wrong, f"s3://{bucket}/{ADDRESS}")
    for address in (
        f"s3://{bucket}",
        f"s3://{bucket}/",
        "photos",
        "gs://bucket/photos",
        "s3:///photos",
    ):
        with pytest.raises(ConfigError, match="must be s3://bucket/prefix"):
            upload(folder, address)


def test_a_backbone_arrives_without_its_pickles_and_can_be_imported(
    store: Store, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    hub.mkdir()
    snapshot.mkdir()
    contents = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors.index.json": (
            b'{"metadata": {"total_size": 8},'
            b' "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
        ),
        "model-1.safetensors": weights("a"),
        "model-2.safetensors": weights("b"),
        "preprocessor_config.json": b"{}",
        "LICENSE": b"Apache",
        "pytorch_model.bin": b"a pickle",
    }
    for name, data in contents.items():  # the hub's cache has links to its blobs
        (hub / name).write_bytes(data)
        (snapshot / name).symlink_to(hub / name)

    upload(snapshot, f"s3://{bucket}/backbones/small")
    printed = capsys.readouterr().out
    assert "not sent, since no step reads it: pytorch_model.bin" in printed
    assert printed.splitlines()[-1] == f"for submit: --param backbone=s3://{bucket}/backbones/small"

    copied = tmp_path / "copied"
    copied.mkdir()
    copy_backbone(f"s3://{bucket}/backbones/small", copied)
    contents.pop("pytorch_model.bin")
    assert {file.name: file.read_bytes() for file in copied.iterdir()} == contents
    assert {key.rpartition("/")[2] for key in held(store, bucket)} == set(contents)


def test_large_files_are_sent_in_parts_once(store: Store, bucket: str, tmp_path: Path) -> None:
    large = tmp_path / "large.parquet"
    large.write_bytes(os.urandom(2 * PART_BYTES + 5))
    done = transfer(store, select(large).files, bucket, ADDRESS, quiet=True)
    assert (done.n_sent, done.sent_bytes) == (1, large.stat().st_size)
    assert store.read(bucket, f"{ADDRESS}/large.parquet") == large.read_bytes()
    assert transfer(store, select(large).files, bucket, ADDRESS, quiet=True).n_sent == 0


def test_ctrl_c_leaves_whole_objects_only_and_the_next_call_goes_on(
    store: Store,
    bucket: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "images/large.bin").write_bytes(os.urandom(3 * PART_BYTES))
    original = Store.put

    def put(
        self: Store,
        bucket: str,
        key: str,
        path: Path,
        *,
        sha256: str,
        on_read: Callable[[int], None],
    ) -> str:
        reads: list[int] = []

        def read(n_bytes: int) -> None:
            reads.append(n_bytes)
            if len(reads) == 2:  # the first of three parts is in the store
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.5)  # until the main thread has noticed
            on_read(n_bytes)

        return original(self, bucket, key, path, sha256=sha256, on_read=read)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", put)
        with pytest.raises(SystemExit) as ended:
            upload(folder, f"s3://{bucket}/{ADDRESS}")
    assert ended.value.code == 130
    assert "the same command sends the rest" in capsys.readouterr().err

    there = held(store, bucket)
    assert f"{ADDRESS}/images/large.bin" not in there
    assert f"{ADDRESS}/labels.csv" not in there, (
        "a folder is a data set only when everything is there"
    )
    assert all(
        data == (folder / key.removeprefix(f"{ADDRESS}/")).read_bytes()
        for key, data in there.items()
    )
    with store._pool.operation(Answers.OBJECT):
        assert store._client._list_multipart_uploads(bucket).uploads == []

    upload(folder, f"s3://{bucket}/{ADDRESS}")
    printed = capsys.readouterr().out
    assert f"{5 - len(there)} files sent" in printed
    assert f"{len(there)} were there" in printed
    assert len(held(store, bucket)) == 5


def test_an_error_of_the_store_ends_the_upload_and_names_the_object(
    s3: StoreSettings, bucket: str, folder: Path
) -> None:
    with fault_proxy(s3.endpoint, rate=1.0, faults=("html",)) as proxy:
        broken = Store(replace(s3, endpoint=proxy.endpoint), deadline_seconds=2)
        with pytest.raises(StreetVisionError, match=f"{proxy.endpoint} bucket '{bucket}'"):
            transfer(broken, files_below(folder), bucket, ADDRESS, quiet=True)


def test_everything_arrives_where_one_call_in_five_fails(
    s3: StoreSettings, bucket: str, folder: Path
) -> None:
    for number in range(40):
        (folder / f"images/more-{number}.jpg").write_bytes(b"more %d" % number)
    with fault_proxy(s3.endpoint, rate=0.2, seed=3) as proxy:
        store = Store(replace(s3, endpoint=proxy.endpoint), deadline_seconds=20)
        transfer(store, files_below(folder), bucket, ADDRESS, quiet=True)
    assert proxy.n_faults > 3
    files = {f"{ADDRESS}/{file.name}": file.path.read_bytes() for file in files_below(folder)}
    assert held(Store(s3), bucket) == files


@pytest.fixture
def encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """ETags that are no MD5: stands for a bucket that is encrypted with a key service (SSE-KMS).

    From the S3 API reference (Object, "ETag"); not checked against such a bucket.
    """
    put, listing = Store.put, Store.list

    def opaque(etag: str) -> str:
        return etag[::-1]

    def encrypted_put(self: Store, *arguments: Any, **options: Any) -> str:
        return opaque(put(self, *arguments, **options))

    monkeypatch.setattr(Store, "put", encrypted_put)
    monkeypatch.setattr(
        Store,
        "list",
        lambda self, *a: [replace(item, etag=opaque(item.etag)) for item in listing(self, *a)],
    )


@pytest.mark.usefixtures("encrypted")
def test_digests_are_compared_where_etags_are_no_md5(
    store: Store, bucket: str, folder: Path
) -> None:
    files = files_below(folder)
    assert transfer(store, files, bucket, ADDRESS, quiet=True).n_sent == 4
    assert transfer(store, files, bucket, ADDRESS, quiet=True).n_sent == 0
    (folder / "images/0.jpg").write_bytes(b"JPEG 0")
    assert transfer(store, files, bucket, ADDRESS, quiet=True).n_sent == 1


def test_bytes_that_differ_after_sending_are_an_error_and_do_not_stay(
    store: Store, bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Store.put

    def put(self: Store, bucket: str, key: str, path: Path, **options: Any) -> str:
        path.write_bytes(b"changed")  # by another program, while it is being sent
        return original(self, bucket, key, path, **options)

    monkeypatch.setattr(Store, "put", put)
    with pytest.raises(
        DigestMismatchError, match=r"\.jpg changed while it was sent; run the command again"
    ):
        transfer(store, files_below(folder), bucket, ADDRESS, quiet=True)
    assert held(store, bucket) == {}


def test_other_bytes_in_the_store_than_were_sent_are_an_error_and_do_not_stay(
    store: Store, bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Store.put

    def put(self: Store, bucket: str, key: str, path: Path, **options: Any) -> str:
        original(self, bucket, key, path, **options)
        with self._pool.operation():  # by another writer, without our checksum
            written = self._client.put_object(bucket, key, io.BytesIO(b"other"), 5)
        return str(written.etag)

    monkeypatch.setattr(Store, "put", put)
    with pytest.raises(DigestMismatchError, match=r"sha256 is .*run the command again"):
        transfer(store, files_below(folder), bucket, ADDRESS, quiet=True)
    assert held(store, bucket) == {}


def test_a_run_on_this_machine_mirrors_its_data(s3: StoreSettings, folder: Path) -> None:
    store = Store(s3)
    store.make_bucket(BUCKET)
    local = LocalStore(store)
    assert local.mirror(str(folder)) == f"s3://{BUCKET}/data"
    (folder / "images/0.jpg").unlink()
    assert local.mirror(str(folder)) == f"s3://{BUCKET}/data"
    assert [item.key for item in store.list(BUCKET, "data/")] == [
        "data/images/1.jpg",
        "data/images/2.jpg",
        "data/labels.csv",
    ]
    (folder / "part.parquet").write_bytes(b"PAR1")
    assert local.mirror(str(folder / "part.parquet")) == f"s3://{BUCKET}/data/part.parquet"
    assert [item.key for item in store.list(BUCKET, "data/")] == ["data/part.parquet"]
