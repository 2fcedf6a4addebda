"""Lists in messages."""

import contextlib
import io
import json
import sys
import time
from typing import Any

import pytest

from components.shared.contracts.listing import first_of, printable, say, say_json, shown


def test_the_first_entries_are_named_and_the_others_counted() -> None:
    assert first_of([]) == ""
    assert first_of(range(20)) == ", ".join(map(str, range(20)))
    assert first_of(range(21)).endswith("18, 19 and 1 more")
    assert first_of((name for name in "abcd"), most=2, separator="; ") == "a; b and 2 more"
    assert len(first_of(["photo.jpg: empty file"] * 100_000)) < 600


def test_a_value_of_any_size_is_shown_in_bounded_time_and_length() -> None:
    bomb: list[Any] = ["lol"]
    for _ in range(60):
        bomb = [bomb] * 10

    start = time.monotonic()
    texts = [
        shown(value) for value in (bomb, "x" * 10**7, 10**100_000, {"k": bomb}, b"\x00" * 9999)
    ]

    assert max(map(len, texts)) < 250
    assert time.monotonic() - start < 5
    assert shown("text") == "'text'"
    assert shown(1.5) == "1.5"


def test_nothing_printed_moves_a_cursor_or_forges_a_line() -> None:
    assert printable("a\x1b]0;x\x07\nb\u202e\ud800") == "a\\x1b]0;x\\x07\\nb\\u202e\\ud800"
    assert printable("Größe é 道 1 000") == "Größe é 道 1 000"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_step_prints_one_line_whatever_the_names_and_the_locale(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """A pod without a locale has ASCII, and ended in the middle of the rejected files."""
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding=encoding))
    say("rejected x\n22:00 - INFO - Task finished \x1b[31m \udcff ü 道: empty file")
    say_json({"image": "x\n\x1b\x7f\x9b\u2028\udcff ü 道 😀", "probability": 0.5})

    first, second, end = stream.getvalue().decode(encoding).split("\n")
    assert (first + second).isprintable()
    assert end == ""
    assert first.startswith(r"rejected x\n22:00 - INFO - Task finished \x1b[31m \udcff ")
    assert json.loads(second)["image"] == "x\n\x1b\x7f\x9b\u2028\udcff ü 道 😀"
    if encoding == "utf-8":
        assert first.endswith(" ü 道: empty file")
        assert second.endswith(r' ü 道 😀", "probability": 0.5}')


def test_nothing_is_printed_without_a_standard_output() -> None:
    with contextlib.redirect_stdout(None):
        say("a line")
        say_json({"a": "\N{SNOWMAN}"})


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        say_json({"probability": float("nan")})
