"""Removal of all objects of the checks; one that resists does not keep the others."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from components.shared.contracts.errors import one_line
from pipelines.smoke.backend import Backend
from pipelines.smoke.checks import Made
from pipelines.smoke.waiting import Waiting

T = TypeVar("T")
_CANCEL_SECONDS = 120.0


class CleanUp:
    """The clean-up after the checks.

    Runs are cancelled and archived, schedules deleted after the end of their runs: with a schedule
    KFP removes the Workflows of its runs, and shows one that had not ended as running for ever.
    Artifacts stay, since KFP's cache leads later runs to them.
    """

    def __init__(self, made: Made, backend: Backend, waiting: Waiting) -> None:
        self._made, self._backend, self._waiting = made, backend, waiting
        self._left: list[str] = []

    def run(self, *, delete_data: bool) -> Iterator[str]:
        """Remove everything; yield what was removed, and a line for each thing that stays."""
        schedules = [name for name in self._made.schedules if self._disable(name)]
        runs = list(dict.fromkeys(self._made.runs))
        active = [run_id for run_id in runs if self._cancel(run_id)]
        if active:
            self._try(
                "cancelled runs",
                lambda: self._waiting.until(lambda: self._ended(active), "", _CANCEL_SECONDS),
            )

        deleted = sum(self._delete(name) for name in schedules)
        archived = sum(self._archive(run_id) for run_id in runs)
        done = [f"{archived} run(s) archived", f"{deleted} schedule(s) deleted"]
        if delete_data:
            n_objects = self._try("objects of the demo", self._backend.delete_demo) or 0
            done.append(f"{n_objects} objects of the demo deleted")

        yield f"cleaned up: {', '.join(done)}"
        yield from self._left

    def _disable(self, name: str) -> bool:
        """Keep a schedule from starting more runs, and note those that it started.

        False where there is none.
        """
        if not self._try(f"schedule {name}", lambda: self._backend.has_schedule(name)):
            return False
        self._try(f"schedule {name}", lambda: self._backend.change_schedule(name, "disable"))
        self._made.runs += (
            self._try(f"runs of schedule {name}", lambda: self._backend.scheduled_runs(name)) or []
        )
        return True

    def _cancel(self, run_id: str) -> bool:
        """Whether the run had not ended and was cancelled."""
        run = self._try(f"run {run_id}", lambda: self._backend.run(run_id))
        if run is None or run.has_ended:
            return False
        self._try(f"run {run_id}", lambda: self._backend.cancel(run_id))
        return True

    def _ended(self, runs: list[str]) -> bool:
        return all(self._backend.run(run_id).has_ended for run_id in runs)

    def _delete(self, schedule: str) -> bool:
        return self._succeeds(
            f"schedule {schedule}", lambda: self._backend.change_schedule(schedule, "delete")
        )

    def _archive(self, run_id: str) -> bool:
        return self._succeeds(f"run {run_id}", lambda: self._backend.archive(run_id))

    def _succeeds(self, what: str, action: Callable[[], object]) -> bool:
        before = len(self._left)
        self._try(what, action)
        return len(self._left) == before

    def _try(self, what: str, action: Callable[[], T]) -> T | None:
        """Return what the action returns; where it fails, None and a line."""
        try:
            return action()
        except Exception as error:  # whatever it is, the rest can go
            self._left.append(f"left as it is: {what}: {one_line(error)}")
            return None
