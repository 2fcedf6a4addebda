"""Errors raised on purpose, and the exit codes that tell whether a retry can help.

Permanent errors (bad input, broken contract, infeasible target) exit with 42: a retry meets the
same check and fails again within seconds. Everything else is transient and exits with 1. Who
retries what: docs/failures.md.
"""

from collections.abc import Sequence

from components.shared.contracts.listing import printable
from components.shared.contracts.redaction import redacted

PERMANENT_EXIT_CODE = 42
TRANSIENT_EXIT_CODE = 1
_LONGEST_LINE = 4000


class StreetVisionError(Exception):
    """Base of all errors raised on purpose.

    The message is one line: the field or file, the value, the remedy.
    """

    exit_code = TRANSIENT_EXIT_CODE


class TransientError(StreetVisionError):
    """Something outside the step failed (store, GPU, another rank); a retry may succeed."""


class MemoryExhaustedError(TransientError):
    """A process of the step ran out of memory; a retry with less of it in use may succeed."""


class OvertakenError(TransientError):
    """Another attempt of the same training has taken over; this one must stop."""


class NotDurableError(TransientError):
    """A checkpoint cannot be stored safely, and `require_durable` is set."""


class PermanentError(StreetVisionError):
    """The inputs cannot be processed; a retry with the same inputs fails again."""

    exit_code = PERMANENT_EXIT_CODE


class ConfigError(PermanentError):
    """A configuration field is unknown, of the wrong type or out of range.

    `problems` lists each of several.
    """

    def __init__(self, message: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems) or [message]


class DataError(PermanentError):
    """The user's data (images, CSV, Parquet) are broken or contradict the configuration."""


class ArtifactError(PermanentError):
    """An artifact directory differs from its manifest; the message lists every difference."""


class LeakageViolationError(ArtifactError):
    """An artifact of one data split was handed to a step that must only see another split."""


class InfeasibleError(PermanentError):
    """No solution satisfies the requested constraint.

    The message names the best attainable value.
    """


def error_class(name: object) -> type[StreetVisionError] | None:
    """Return the class of this module that a record names; None where there is none."""
    found = globals().get(name) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, StreetVisionError):
        return found
    return None


def one_line(error: BaseException) -> str:
    """The error as a single line, for status.json, logs and the terminal.

    Credentials are redacted, control characters are escaped, and what exceeds 4,000 characters is
    cut from its middle.
    """
    text = str(error)
    if len(text) > 10 * _LONGEST_LINE:  # redaction looks at every character
        text = f"{text[: 5 * _LONGEST_LINE]} {text[-5 * _LONGEST_LINE :]}"
    text = printable(" ".join(redacted(text).split()))
    if len(text) > _LONGEST_LINE:
        text = f"{text[: _LONGEST_LINE // 2]} [...] {text[-_LONGEST_LINE // 2 :]}"
    return text or type(error).__name__
