"""Reading of documents: a value of the expected type, or one typed and bounded line."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components.shared.contracts.documents import as_type, parse_json, read_json, read_object
from components.shared.contracts.errors import ArtifactError, ConfigError

HOSTILE = {
    "not UTF-8": b'{"a": "\xff"}',
    "not valid JSON": b'{"a": 1',
    "empty": b"",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "beyond a double": b'{"a": 1e999}',
    "huge integer": b'{"a": 1' + b"0" * 5000 + b"}",
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep and open": b'{"a":' * 100_000,
    "repeated key": b'{"a": 1, "a": 2}',
    "surrogate": b'{"a": "\\ud800"}',
    "surrogate key": b'{"\\udfff": 1}',
    "open text of quotes": b'{"a": "' + b'\\"' * 1_000_000,
    "open text of backslashes": b'"' + b"\\" * 1_000_001,
    "empty lists": b"[" + b"[]," * 300_000 + b"[]]",
    "digits": b"1" * 1_000_000,
    "an integer beyond a double": b"9" * 309,
    "byte order mark": b"\xef\xbb\xbf{}",
    "two values": b"{} {}",
    "many repeated keys": b"{" + b'"a":1,' * 900_000 + b'"a":1}',
}


@dataclass(frozen=True)
class Point:
    """A document of these tests."""

    x: float
    names: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_malformed_document_is_one_short_typed_line(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "document.json"
    file.write_bytes(data)

    started = time.process_time()
    with pytest.raises(ArtifactError, match=r"document\.json") as caught:
        read_json(file)

    assert len(str(caught.value)) < 500
    assert time.process_time() - started < 5


def test_a_document_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "document.json"
    with file.open("wb") as stream:
        stream.truncate(300 * 2**30)  # sparse

    with pytest.raises(ArtifactError, match="larger than"):
        read_json(file)


def test_missing_linked_and_special_files_are_refused(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text("{}", encoding="utf-8")
    (tmp_path / "link.json").symlink_to(real)

    with pytest.raises(ArtifactError, match="cannot be read"):
        read_json(tmp_path / "missing.json")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")

    for name in ("link.json", ".", "pipe.json", "zero.json"):
        with pytest.raises(ArtifactError, match="not a regular file"):
            read_json(tmp_path / name)


def test_a_users_file_may_be_a_link_but_nothing_special(tmp_path: Path) -> None:
    """A ConfigMap's files are links."""
    (tmp_path / "real.json").write_text("{}", encoding="utf-8")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe.json").symlink_to(tmp_path / "pipe")
    (tmp_path / "zero.json").symlink_to("/dev/zero")

    assert read_json(tmp_path / "link.json", linked=True) == {}
    for name in ("pipe.json", "zero.json"):
        with pytest.raises(ArtifactError, match="not a regular file"):
            read_json(tmp_path / name, linked=True)


def test_pairs_of_surrogates_are_text() -> None:
    assert parse_json(b'"\\ud83d\\ude00"', "x") == "\U0001f600"


def test_brackets_within_text_are_no_nesting() -> None:
    value = ["[" * 1000, '\\"[', {"{": "]"}]

    assert parse_json(json.dumps(value), "x") == value


def test_objects_have_exactly_their_types() -> None:
    assert as_type({"x": 1.5, "names": ["a"]}, Point, "x") == Point(1.5, ("a",))

    for value, name in [
        ({"x": "1"}, "x"),
        ({"x": True}, "x"),
        ({"names": []}, "x"),
        ({"x": 1.0, "names": [1]}, "names.0"),
        ({"x": 1.0, "sizes": {"a": 1.5}}, "sizes.a"),
        ({"x": 1.0, "colour": 1}, "colour"),
        ([], "document"),
        (None, "document"),
    ]:
        with pytest.raises(ArtifactError, match=f"where: {name}: "):
            as_type(value, Point, "where")


def test_a_document_of_wrong_values_only_is_refused_in_bounded_time() -> None:
    document = {"x": 1.0, "sizes": dict.fromkeys(map(str, range(200_000)), "a")}
    started = time.process_time()

    with pytest.raises(ArtifactError, match="200,000 values are not as expected"):
        as_type(document, Point, "where")

    assert time.process_time() - started < 10


def test_the_error_class_is_the_callers(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"x": "a\\u001b[2J"}', encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        read_object(file, Point, error=ConfigError)

    assert "\x1b" not in str(caught.value)
