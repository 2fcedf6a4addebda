"""Waiting for a run, with its progress on the way and its reasons where it takes too long."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from components.shared.contracts.errors import StreetVisionError, TransientError, one_line
from pipelines.kubeflow.run_status import RunStatus, StepState
from pipelines.smoke.backend import Backend

T = TypeVar("T")
_MOST_FAILURES = (
    5  # looks in a row without an answer: a forwarded port that is renewed costs one or two
)


class FailedError(StreetVisionError):
    """A check did not find what it should."""


class WaitedError(FailedError):
    """What a check waited for did not come in time."""


@dataclass(frozen=True)
class Clock:
    """The time in seconds, and how it passes."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Waiting:
    """Looks at a cluster every `poll` seconds, for a run at most `timeout` seconds long."""

    def __init__(
        self, backend: Backend, timeout: float, poll: float, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self._backend, self._timeout, self._poll = backend, timeout, poll
        self._shown: dict[tuple[str, str], StepState] = {}

    def end_of(self, run_id: str) -> RunStatus:
        """Return a run that has ended. Raises FailedError where it takes longer."""

        def ended() -> RunStatus | None:
            run = self._backend.run(run_id)
            self._show(run)
            return run if run.has_ended else None

        return self.for_run(run_id, ended, "its end")

    def for_run(self, run_id: str, look: Callable[[], T | None], what: str) -> T:
        """Return what `look` finds in a run.

        Where it takes longer, FailedError with the reason why steps wait.
        """
        try:
            return self.until(look, what, self._timeout)
        except WaitedError as error:
            reason = self._backend.reason(run_id) or "no reason is known"
            raise FailedError(f"run {run_id}: {error}; {reason}") from None

    def until(self, look: Callable[[], T | None], what: str, seconds: float) -> T:
        """Return what `look` finds as soon as it finds something.

        Raises WaitedError after so many seconds.
        """
        ends, n_failures = self.clock.now() + seconds, 0
        while True:
            try:
                found = look()
                n_failures = 0
            except TransientError as error:
                found, n_failures = None, n_failures + 1
                if n_failures == _MOST_FAILURES:
                    raise
                print(f"note: {one_line(error)}", file=sys.stderr, flush=True)

            if found:
                return found
            if self.clock.now() >= ends:
                raise WaitedError(f"waited {seconds:.0f} s for {what}")
            self.clock.sleep(self._poll)

    def _show(self, run: RunStatus) -> None:
        """Print the steps that changed since the last look."""
        for step in run.steps:
            known = self._shown.setdefault((run.run_id, step.name), StepState.WAITING)
            if step.state != known:
                self._shown[run.run_id, step.name] = step.state
                print(
                    f"{datetime.now(UTC):%H:%M:%S}  {step.name:22} {step.state}",
                    file=sys.stderr,
                    flush=True,
                )
