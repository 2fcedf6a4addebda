"""Signals that ask a process to end: an exception in the main thread, after what must end first.

Ctrl-C, SIGTERM (`timeout`, a service manager, CI) and SIGHUP (a closed terminal) all unwind the
process, so that files, servers and child processes are cleaned up as after an error.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_REQUEST_SECONDS = 1.0


class SignalReceivedError(KeyboardInterrupt):
    """A signal asked this process to end.

    signal: which. exit_code: as a shell reports it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number

    def __str__(self) -> str:
        return f"interrupted by {self.signal.name}"


@dataclass
class Interrupts:
    """The first signal that reached this process inside `interruptible`, and when (monotonic)."""

    received: SignalReceivedError | None = None
    time: float = 0.0


_actions: list[Callable[[], None]] = []


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Raise SignalReceivedError in the main thread at a signal that asks to end.

    One that follows within a second is the same request: `timeout` sends two. A signal that is
    ignored already (`nohup`, a shell's background) stays ignored. Enter from the main thread.
    """
    interrupts = Interrupts()

    def end(number: int, _frame: FrameType | None) -> None:
        received = SignalReceivedError(number)
        if interrupts.received is None:
            interrupts.received, interrupts.time = received, time.monotonic()
            for action in reversed(_actions):
                action()
        elif time.monotonic() - interrupts.time < _ONE_REQUEST_SECONDS:
            return
        raise received

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)

    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` before the exception is raised: it ends what the unwinding would wait for.

    It runs inside a signal handler, so it must not wait for a lock.
    """
    _actions.append(action)
    try:
        yield
    finally:
        _actions.remove(action)
