"""A file that an option names is read from here or from the store, or refused by its option."""

from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError, DataError
from components.shared.storage import Store, StoreSettings
from components.shared.storage.places import read_place


def test_a_local_and_a_stored_file_have_the_same_bytes(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "table.csv"
    file.write_bytes(b"id\n1\n")
    Store(s3).put(bucket, "tables/table.csv", file)
    assert read_place("exclude", str(file)) == b"id\n1\n"
    assert read_place("exclude", f"s3://{bucket}/tables/table.csv") == b"id\n1\n"
    with pytest.raises(ConfigError, match=rf"exclude='s3://{bucket}' is a bucket"):
        read_place("exclude", f"s3://{bucket}")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"relabel='.*/none.csv' does not exist"):
        read_place("relabel", str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match=r"relabel='.*' cannot be read \("):
        read_place("relabel", str(tmp_path))
