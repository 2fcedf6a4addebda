"""The data of a local run in the embedded store: what is copied, and what a dry run changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.ingest_dataset.sources.config import SourceConfig
from components.ingest_dataset.sources.labels import label_sources
from components.ingest_dataset.sources.open import open_source
from components.shared.data.decode import ImageRejectedError
from pipelines.local.store import BUCKET, LocalStore, local_store

SECRET = b"TOP SECRET"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    with local_store(tmp_path_factory.mktemp("runs") / "store") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set with one link inside and two links out, of which one has a row."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(SECRET)
    (data / "images/0.jpg").write_bytes(b"JPEG 0")
    (data / "images/1.jpg").symlink_to("0.jpg")
    (data / "images/2.jpg").symlink_to(tmp_path / "secret")
    (data / "notes.txt").symlink_to(tmp_path / "secret")
    rows = "".join(f"images/{i}.jpg,{i % 2}\n" for i in range(3))
    (data / "labels.csv").write_text("path,label\n" + rows)
    return data


def _read(address: str) -> dict[str, bytes | None]:
    """Path and bytes of what ingest would decode; None for a reject."""
    source = open_source(SourceConfig(data=address))
    found: dict[str, bytes | None] = {}
    for record in source.records(label_sources([source], None).of_sources[0]):
        try:
            found[record.path] = record.read()
        except ImageRejectedError:
            found[record.path] = None
    return found


def test_links_out_of_the_folder_are_rejects_as_where_it_is_read_directly(
    store: LocalStore, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = store.mirror(str(folder))
    printed = capsys.readouterr().out
    assert printed == f"links out of {folder}, not followed: images/2.jpg, notes.txt\n"
    assert _read(address) == _read(str(folder))
    assert _read(address) == {
        "images/0.jpg": b"JPEG 0",
        "images/1.jpg": b"JPEG 0",
        "images/2.jpg": None,
    }
    held = [store.store.read(BUCKET, item.key) for item in store.store.list(BUCKET, "data/")]
    assert len(held) == 3
    assert SECRET not in held


def test_a_comparison_neither_sends_nor_removes(store: LocalStore, folder: Path) -> None:
    store.mirror(str(folder))
    assert store.mirrors(str(folder))
    before = {item.key: item.etag for item in store.store.list(BUCKET, "")}

    (folder / "images/1.jpg").unlink()
    (folder / "images/9.jpg").write_bytes(b"new")
    assert not store.mirrors(str(folder))
    assert {item.key: item.etag for item in store.store.list(BUCKET, "")} == before

    store.mirror(str(folder))
    assert store.mirrors(str(folder))
