"""A process whose standard input says yes to everything, or stays open and silent."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_asked(
    command: Sequence[str],
    answer: str | None,
    folder: Path,
    variables: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[str]:
    """Run a command with the answer (None: silence) in its standard input, which it must not read.

    Args:
        command: of the process.
        answer: what its standard input holds.
        folder: where it runs.
        variables: its environment.
    """
    read, write = os.pipe()
    try:
        if answer is not None:
            os.write(write, answer.encode())
        ended = subprocess.run(
            command,
            stdin=read,
            capture_output=True,
            text=True,
            cwd=folder,
            env=dict(variables),
            timeout=120,
            check=False,
        )
        assert answer is None or os.read(read, 10_000) == answer.encode()
    finally:
        os.close(read)
        os.close(write)

    return ended
