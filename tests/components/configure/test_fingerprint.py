"""What the fingerprint notices, on disk and in an object store."""

import os
from pathlib import Path

import pytest

from components.configure.fingerprint import file_fingerprint, fingerprint
from components.shared.contracts.errors import ConfigError, DataError
from components.shared.storage import Store, StoreSettings
from tests.hostile_files import HOSTILE, without_root_rights


def _digest(data: str, extra: str = "") -> str:
    return fingerprint(data, "facebook/dinov2-small", extra).data


def test_every_change_of_a_folder_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"one")
    seen = [_digest(str(tmp_path))]
    assert _digest(str(tmp_path)) == seen[0]
    file.write_bytes(b"onetwo")
    seen.append(_digest(str(tmp_path)))
    os.utime(file, ns=(1, 1))
    seen.append(_digest(str(tmp_path)))
    (tmp_path / "b.jpg").write_bytes(b"")
    seen.append(_digest(str(tmp_path)))
    seen.append(_digest(str(tmp_path), f'[{{"data": "{tmp_path}"}}]'))
    assert len(set(seen)) == 5


def test_every_change_below_a_prefix_is_noticed_without_reading_an_object(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("reads an object"))
    store, place = Store(s3), f"s3://{bucket}/photos"
    file = tmp_path / "x"

    def put(key: str, data: bytes) -> str:
        file.write_bytes(data)
        store.put(bucket, key, file)
        return _digest(place)

    seen = [put("photos/1.jpg", b"one"), put("photos/1.jpg", b"two"), put("photos/2.jpg", b"one")]
    assert put("photos/1.jpg", b"two") == seen[2], "the same bytes again are no change"
    store.delete(bucket, "photos/1.jpg")
    assert len({*seen, _digest(place)}) == 4


def test_an_empty_prefix_a_missing_folder_and_nothing_are_refused(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match="holds no objects"):
        _digest(f"s3://{bucket}/nothing")
    with pytest.raises(DataError, match="does not exist"):
        _digest(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="data='' is not set"):
        _digest("")


def test_odd_entries_of_a_folder_do_not_end_the_run(tmp_path: Path) -> None:
    """They are what ingest rejects one by one, if the table lists them at all."""
    (tmp_path / "a.jpg").write_bytes(b"one")
    seen = _digest(str(tmp_path))
    for number, (make, _) in enumerate(HOSTILE.values()):
        make(tmp_path / f"{number}.jpg")
    assert _digest(str(tmp_path)) != seen  # of the sparse file, whose bytes nobody reads

    with Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).open("wb"):
        pass
    assert _digest(str(tmp_path)) != seen


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=r"loop' cannot be read .Too many levels"):
        _digest(str(tmp_path / "loop"))
    with pytest.raises(DataError, match=r"cannot be read .File name too long") as caught:
        _digest("x" * 5000)
    assert len(str(caught.value)) < 400

    (tmp_path / "closed").mkdir(mode=0)
    with without_root_rights(), pytest.raises(DataError, match=r"closed' cannot be read .Permi"):
        _digest(str(tmp_path / "closed"))


def test_a_backbone_in_the_store_is_its_listing(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "config.json"
    seen = []
    for text in ("{}", "{ }"):
        file.write_text(text)
        Store(s3).put(bucket, "model/config.json", file)
        seen.append(fingerprint(str(tmp_path), f"s3://{bucket}/model").backbone)
    assert len({*seen, f"s3://{bucket}/model"}) == 3
    with pytest.raises(DataError, match=r"backbone='s3://.* holds no objects"):
        fingerprint(str(tmp_path), f"s3://{bucket}/other")


def test_a_backbone_of_the_hub_is_its_id_and_a_folder_its_listing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = fingerprint(str(tmp_path), str(tmp_path)).backbone
    (tmp_path / "config.json").write_text("{ }")
    assert fingerprint(str(tmp_path), str(tmp_path)).backbone != first
    assert fingerprint(str(tmp_path), "org/name").backbone == "org/name"


@pytest.mark.parametrize("place", ["x" * 5000, "x" * 300, "a\0b", "loop"])
def test_a_path_that_can_be_none_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match=r"data=.* (does not exist|cannot be read)") as caught:
        fingerprint(place, "facebook/dinov2-small")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["[", "5", "[5]", '[{"data": 5}]', "[" * 5000, '{"data": "x"}'])
def test_malformed_further_sources_are_one_typed_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="extra_sources"):
        fingerprint(str(tmp_path), "facebook/dinov2-small", text)


def test_corrections_are_part_of_the_data(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    data = tmp_path / "data"
    data.mkdir()
    file = tmp_path / "suspects.csv"
    file.write_text("id\n")
    stored = f"s3://{bucket}/suspects.csv"
    store = Store(s3)

    def found(**corrections: str) -> str:
        return fingerprint(str(data), "facebook/dinov2-small", "", corrections).data

    plain = found()
    assert plain == _digest(str(data)) == found(exclude="", relabel="")
    seen = [plain, found(exclude=str(file)), found(relabel=str(file))]
    file.write_text("id\n0123456789abcdef\n")
    seen.append(found(exclude=str(file)))
    store.put(bucket, "suspects.csv", file)
    seen.append(found(exclude=stored))
    store.put(bucket, "suspects.csv.old", file)
    assert found(exclude=stored) == seen[-1], "another object's name begins alike"
    assert len(set(seen)) == len(seen)

    for wrong, reason in (
        (str(tmp_path / "no.csv"), "does not exist"),
        (str(data), "is a folder"),
        (f"s3://{bucket}/no.csv", "holds no objects"),
        (f"s3://{bucket}/suspects", "beginning of others"),
    ):
        with pytest.raises(DataError, match=f"relabel='.*' .*{reason}"):
            found(relabel=wrong)


def test_a_table_of_stage_2_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "two.csv"
    file.write_text("sample_id\n")
    first = file_fingerprint("stage2_logits", str(file))
    assert file_fingerprint("stage2_logits", str(file)) == first
    file.write_text("sample_id\na\n")
    assert file_fingerprint("stage2_logits", str(file)) != first
    with pytest.raises(DataError, match=r"stage2_logits='.*none.csv' does not exist"):
        file_fingerprint("stage2_logits", str(tmp_path / "none.csv"))
