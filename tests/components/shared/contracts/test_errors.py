"""Exit codes of errors, and messages of one line."""

import pytest

from components.shared.contracts import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.ConfigError, 42),
        (errors.DataError, 42),
        (errors.LeakageViolationError, 42),
        (errors.InfeasibleError, 42),
        (errors.TransientError, 1),
        (errors.MemoryExhaustedError, 1),
        (errors.NotDurableError, 1),
    ],
)
def test_an_error_is_permanent_or_worth_a_retry(
    kind: type[errors.StreetVisionError], exit_code: int
) -> None:
    assert kind("x").exit_code == exit_code


def test_a_message_becomes_one_line() -> None:
    assert errors.one_line(ValueError("two\n  lines\tand a tab")) == "two lines and a tab"
    assert errors.one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_every_problem_of_a_configuration_is_kept() -> None:
    assert errors.ConfigError("first").problems == ["first"]
    assert errors.ConfigError("2 problems", ["first", "second"]).problems == ["first", "second"]


def test_the_line_of_a_hostile_message_is_bounded_and_printable() -> None:
    line = errors.one_line(ValueError("a\x1b[2J" + "x" * 10**6 + "the remedy"))

    assert len(line) < 4100
    assert line.startswith("a\\x1b[2J")
    assert line.endswith("the remedy")
