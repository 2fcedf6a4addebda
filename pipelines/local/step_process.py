"""Process of one local step: it ends with its run, and asks for no more than the run's signal.

`python -m pipelines.local.step_process <arguments of kfp.dsl.executor_main>` runs a component in a
session of its own, where a terminal's Ctrl-C does not reach it: the run ends it.
"""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

from components.shared.contracts.environment import Variable
from components.shared.contracts.interrupts import (
    SignalReceivedError,
    at_interrupt,
    interruptible,
)
from components.shared.contracts.processes import end_with_parent

_EXECUTOR = "kfp.dsl.executor_main"
_GRACE_SECONDS = 2.0  # for a step's own clean-up and status, until its processes are killed


class StepProcesses:
    """The processes of a run's steps; a signal to the run ends them, and no further one starts.

    kfp.local waits for a step in its main thread, or, inside a loop, in threads whose end the main
    thread waits for whatever happens: without this, the run would go on until the step ends.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self.interrupted = False

    @contextlib.contextmanager
    def ended_by_signals(self) -> Iterator[None]:
        """End the steps at a signal that asks to end, inside the context."""
        with at_interrupt(self._end):
            yield

    def run(
        self, arguments: Sequence[str], variables: Mapping[str, str], descriptors: Sequence[int]
    ) -> int:
        """Run a step; print what it prints, line by line; return its exit code.

        Args:
            arguments: Arguments of kfp's executor.
            variables: Environment.
            descriptors: Files that the step inherits.
        """
        if self.interrupted:
            return -signal.SIGTERM

        with subprocess.Popen(
            [sys.executable, "-m", "pipelines.local.step_process", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            env={**variables, Variable.PARENT: str(os.getpid())},
            pass_fds=descriptors,
            start_new_session=True,
        ) as process:
            self._running.add(process)
            if self.interrupted:
                self._end()
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if not self.interrupted:
                        print(line, end="")
                return process.wait()
            finally:
                # A step that is ending must not fail because nobody reads what it says.
                for _ in process.stdout:
                    pass
                self._running.discard(process)

    def _end(self) -> None:
        self.interrupted = True
        for process in list(self._running):
            process.terminate()

        killer = threading.Timer(_GRACE_SECONDS, self._kill)
        killer.daemon = True
        killer.start()

    def _kill(self) -> None:
        """Kill what is left of the steps: also of one that has ended, but whose child has not."""
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Run kfp's executor on the arguments of this process."""
    end_with_parent()
    with interruptible():
        try:
            runpy.run_module(_EXECUTOR, run_name="__main__", alter_sys=True)
        except SignalReceivedError as received:
            sys.exit(received.exit_code)


if __name__ == "__main__":
    main()
