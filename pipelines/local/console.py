"""Filter of kfp.local's log: it passes the steps and their own lines."""

import contextlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from components.shared.contracts.listing import printable

_DROPPED = re.compile(
    r"\s*(\[KFP Executor |-{20,}$|$)|.* - INFO - (Streamed logs:|Task .* outputs:)"
)
_DUMP_BEGINS = re.compile(r"\s*\[KFP Executor .*Got executor_input:")
_DUMP_ENDS = re.compile(r"\s{0,4}\}$")
_OUTPUTS_BEGIN = re.compile(r".* - INFO - Task .* outputs:")
_COLOUR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_INDENT = "    "  # kfp.local's, before every line of a step
_ERROR = f"{_INDENT}error: "


def without_colours(text: str) -> str:
    """Return the text without colours and cursor movements."""
    return _COLOUR.sub("", text)


def _harmless(line: str) -> str:
    """Return a step's line as text: what acts on a terminal is removed or escaped."""
    return "\t".join(map(printable, without_colours(line).split("\t")))


class _Readable:
    """A text stream that passes on the lines worth reading.

    The steps' input and output documents are not. A step's error is kept in `errors`: the command
    that ends with it says it, once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line = stream, ""
        self.errors: list[str] = []
        self._in_dump = self._in_outputs = False

    def write(self, text: str) -> int:
        """Pass on complete lines."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.startswith(_ERROR):
                self.errors.append(line.removeprefix(_ERROR))
            elif self._wanted(line):
                is_kfps = not line.startswith(_INDENT)
                shown = line if is_kfps and self._stream.isatty() else _harmless(line)
                self._stream.write(shown + "\n")
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Lines are flushed as they come."""

    def isatty(self) -> bool:
        """As the stream behind."""
        return self._stream.isatty()

    def _wanted(self, line: str) -> bool:
        if self._in_dump:
            self._in_dump = not _DUMP_ENDS.match(line)
            return False
        if self._in_outputs and line.startswith(_INDENT):
            return False
        self._in_dump = bool(_DUMP_BEGINS.match(line))
        self._in_outputs = bool(_OUTPUTS_BEGIN.match(line))
        return not _DROPPED.match(line)


@contextlib.contextmanager
def readable_log() -> Iterator[list[str]]:
    """Reduce standard output to the lines worth reading, and silence remarks on local runs.

    Yields the errors of the steps, which are not printed.
    """
    stream = _Readable(sys.stdout)
    with (
        _cache_hits_shown(),
        contextlib.redirect_stdout(stream),
        warnings.catch_warnings(),
    ):
        # Images and resources are for the cluster; that a subprocess has neither is what a local
        # run means.
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner")
        warnings.filterwarnings(
            "ignore", message="You may be attemping to run a task that uses custom"
        )
        yield stream.errors


@contextlib.contextmanager
def _cache_hits_shown() -> Iterator[None]:
    """Show the cache hits that kfp.local logs to the root logger, below its usual level."""
    root = logging.getLogger()
    level, handler = root.level, logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d - %(levelname)s - %(message)s", "%H:%M:%S")
    )
    handler.addFilter(lambda record: "cache hit" in record.getMessage())
    root.addHandler(handler)
    root.setLevel(logging.INFO)

    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
