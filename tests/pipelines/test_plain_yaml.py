"""YAML of users: plain values, or one short typed line in bounded time."""

import time
from typing import Any

import pytest

from components.shared.contracts.errors import ConfigError
from pipelines.plain_yaml import MOST_BYTES, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 1.5, null, ~, true, 'y']", {"a": 1, "b": ["x", 1.5, None, None, True, "y"]}),
        ("when: 2020-01-31", {"when": "2020-01-31"}),
        ("{0: None, -1: exclude, '1': Roadwork}", {0: "None", -1: "exclude", "1": "Roadwork"}),
        ("! text", "text"),
        ("text: |\n  one\n  two\n", {"text": "one\ntwo\n"}),
        ("a: =", {"a": "="}),
    ],
)
def test_plain_values_are_read(text: str, value: Any) -> None:
    assert parse_yaml(text, "x") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x", r"x: anchors \(&name\) are not read.* in line 1, column 4"),
        ("[*x]", "aliases"),
        ("!!python/object/apply:os.system [x]", "tags"),
        ("a: !!set {b}", "tags"),
        ("a: 1\nb: 2\na: 3", "the key 'a' occurs twice.* in line 3, column 1"),
        ("{0: a, 00: b}", "the key '0' occurs twice"),
        ("yes: x", "the key 'yes' is not text; put it in quotes"),
        ("1.5: x", "is not text"),
        ("? [a]\n: x", "the key of several values is not text"),
        ("<<: {a: 1}", "is not text"),
        ("a: 'x", "unexpected end of stream"),
        ("---\na\n---\nb", "another document"),
        ("\x1b", "special characters"),
        ("a: 0b_", "invalid literal"),
        ("1" * 5000, "limit"),
        ("[" * 5000, "nested deeper"),
        ("- " * 5000, "nested deeper"),
        ("a" * (MOST_BYTES + 1), "larger than"),
    ],
)
def test_everything_else_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_yaml(text, "x")
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_the_largest_document_is_read_in_bounded_time() -> None:
    text = "[" + "[]," * (MOST_BYTES // 3 - 1) + "]"
    started = time.process_time()
    assert len(parse_yaml(text, "x")) > 40_000
    assert time.process_time() - started < 30
