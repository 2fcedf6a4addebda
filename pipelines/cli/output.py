"""A quiet end of a command whose output is closed (`| head`)."""

import contextlib
import os
import sys
from collections.abc import Iterator

from pipelines.exit_codes import CLOSED


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
    """End the process without a traceback where standard output is closed."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # else a short output fails only when the interpreter ends
    except BrokenPipeError:
        # The interpreter flushes once more at its end; what is left has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED)
