"""Lines that the steps of a run wrote: of steps that have ended, and of running ones."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from components.shared.contracts.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.kubeflow.cluster import Cluster
    from pipelines.kubeflow.run_report import RunReader
    from pipelines.kubeflow.run_status import RunStatus, StepStatus

_WHY_NO_LOG = {
    "waiting": "has not started",
    "skipped": "did not run",
    "cached": "came from the cache; its log is with the run that made it",
}


def stored_lines(reader: "RunReader", run: "RunStatus", step: str | None) -> Iterator[str]:
    """Yield the lines of all steps, or of `step`.

    A running step's lines are its pod's, another's are the store's.

    Raises ConfigError if the run has no such step.
    """
    for chosen in _chosen_steps(run, step):
        yield from _lines(reader, run, chosen, named=bool(step))


def followed_lines(
    reader: "RunReader", cluster: "Cluster", run_id: str, step: str | None, poll: float
) -> Iterator[str]:
    """Yield the lines of the chosen steps as they are written, one step after the other.

    Args:
        reader: reads logs from pods and from the object store.
        cluster: Kubeflow's API.
        run_id: id of the run.
        step: name of the only step to follow; None for all.
        poll: seconds between two requests.

    Raises:
        ConfigError: the run has no such step.
    """
    followed: set[str] = set()
    done: set[str] = set()
    while True:
        run = cluster.run(run_id)
        chosen = _chosen_steps(run, step)
        for one in chosen:
            if one.name in done or one.state == "waiting":
                continue

            if one.state == "running":
                yield from _live_lines(reader, run, one, followed)
                continue

            if not any(name.startswith(f"{one.name} ") for name in followed):
                yield from _lines(reader, run, one, named=bool(step))
            done.add(one.name)

        if run.has_ended or (step and all(one.name in done for one in chosen)):
            return
        time.sleep(poll)


def _chosen_steps(run: "RunStatus", wanted: str | None) -> list["StepStatus"]:
    """Return the steps to show. Raises ConfigError if the run has no such step."""
    if wanted is None:
        return list(run.steps)
    found = [step for step in run.steps if wanted in (step.name, step.task)]
    if not found:
        names = ", ".join(step.name for step in run.steps) or "none yet"
        raise ConfigError(f"run {run.run_id} has no step {wanted!r}; it has: {names}")
    return found


def _lines(
    reader: "RunReader", run: "RunStatus", step: "StepStatus", *, named: bool
) -> Iterator[str]:
    """Yield the lines of one step; of one without a log only if it was named."""
    from pipelines.kubeflow.run_logs import readable

    if step.state in ("waiting", "skipped", "cached"):
        if named:
            yield f"== {step.name}: {_WHY_NO_LOG[step.state]}"
        return

    n_shown = 0

    for attempt, lines in reader.step_logs(run, step):
        n_shown += 1
        yield f"== {step.name}" + (f", attempt {attempt + 1}" if step.attempts > 1 else "")
        yield from readable(lines)

    if not n_shown:
        yield f"== {step.name}: no log is found, neither in the object store nor of a pod"


def _live_lines(
    reader: "RunReader", run: "RunStatus", step: "StepStatus", followed: set[str]
) -> Iterator[str]:
    """Yield the lines of a running step's pods that were not followed yet, until they end."""
    from pipelines.kubeflow.run_logs import readable

    for pod, lines in reader.live_logs(run, step):
        if f"{step.name} {pod}" not in followed:
            followed.add(f"{step.name} {pod}")
            yield f"== {step.name}"
            yield from readable(lines)
