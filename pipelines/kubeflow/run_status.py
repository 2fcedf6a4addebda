"""State of a run and of its steps, from what KFP's API tells about it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pipelines.kubeflow.run_nodes import DRIVER_SUFFIX, EXECUTOR, Node, Nodes, attempts, read_time

# Groups that KFP's compiler makes from loops, conditions and exit handlers, and the root's own
# node.
_COMPILED_GROUP = re.compile(
    r"(for-loop|condition|condition-branches|exit-handler)-\d+(\.onExit)?|iteration-.*|root"
)


class RunState(StrEnum):
    """State of a run; CANCELLED also where KFP says FAILED after it was told to cancel."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """State of a step. WAITING: its pod has not started.

    UNKNOWN: the run ended, and KFP's last report is older.
    """

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


ENDED_RUN = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
_ACTIVE = frozenset({StepState.WAITING, StepState.RUNNING, StepState.UNKNOWN})
_KFP_RUN_STATES = {
    "RUNNING": RunState.RUNNING,
    "PAUSED": RunState.PAUSED,
    "CANCELING": RunState.CANCELLING,
    "SUCCEEDED": RunState.SUCCEEDED,
    "SKIPPED": RunState.SUCCEEDED,
    "FAILED": RunState.FAILED,
    "CANCELED": RunState.CANCELLED,
}


@dataclass(frozen=True)
class StepStatus:
    """State of one step.

    start, end: None where it has not begun or not ended. attempts: pods that Argo started for it, 0
    where it has none or the API does not tell. node: full name of Argo's node, "" before there is
    one. driver_failed: it failed before its own container was started.
    """

    name: str
    state: StepState
    start: datetime | None = None
    end: datetime | None = None
    attempts: int = 0
    node: str = ""
    driver_failed: bool = False

    @property
    def task(self) -> str:
        """Name of the task; a loop runs one task as several steps, which are numbered."""
        return self.name.partition(" (")[0]

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs, and where it did not run here."""
        if self.start is None or self.end is None or self.state == StepState.CACHED:
            return None
        return (self.end - self.start).total_seconds()

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `status --json` shows."""
        return {
            "name": self.name,
            "state": str(self.state),
            "start": _shown(self.start),
            "end": _shown(self.end),
            "seconds": self.seconds,
            "attempts": self.attempts,
        }


@dataclass(frozen=True)
class FailedDriver:
    """A driver of KFP that failed: `name` is the group or step that it would have started.

    `node` is Argo's.
    """

    name: str
    node: str


@dataclass(frozen=True)
class RunStatus:
    """State of a run; steps stand in the order of the graph.

    workflow: name of Argo's Workflow, "" before it has started. recurring_run_id: schedule that
    started it, or "". pipeline_root: given with the run, or "". failed_drivers: those of groups,
    which belong to no step.
    """

    run_id: str
    name: str
    state: RunState
    created: datetime | None
    ended: datetime | None
    workflow: str
    pipeline_id: str
    version_id: str
    recurring_run_id: str
    pipeline_root: str
    steps: tuple[StepStatus, ...]
    failed_drivers: tuple[FailedDriver, ...]

    @property
    def has_ended(self) -> bool:
        """Whether KFP has reported the end of the run."""
        return self.state in ENDED_RUN

    @property
    def awaits_report(self) -> bool:
        """Return whether every step has ended while KFP has not yet reported the end of the run."""
        return (
            not self.has_ended
            and bool(self.steps)
            and not any(step.state in _ACTIVE for step in self.steps)
        )

    @property
    def seconds(self) -> float | None:
        """How long the run took; None before its end."""
        if self.created is None or self.ended is None or self.ended < self.created:
            return None
        return (self.ended - self.created).total_seconds()

    def step(self, name: str) -> StepStatus | None:
        """Return the step of this name."""
        return next((step for step in self.steps if step.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `status --json` shows."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "state": str(self.state),
            "awaits_report": self.awaits_report,
            "created": _shown(self.created),
            "ended": _shown(self.ended),
            "seconds": self.seconds,
            "steps": [step.to_json() for step in self.steps],
            "failed_drivers": [driver.name for driver in self.failed_drivers],
        }


def run_status(document: Mapping[str, Any], steps: Sequence[str] = ()) -> RunStatus:
    """Read a run as `GET /apis/v2beta1/runs/<id>` answers it.

    `steps`: names of the pipeline's tasks in the order of its graph (`pipelines.graph.steps_of` of
    the version's spec). Without them steps are told by their nodes and stand in the order of their
    start; then a task that was left out cannot be told from a group that was.
    """
    nodes = Nodes((document.get("run_details") or {}).get("task_details") or [])
    state, cancelled_at = _run_state(document)
    reference = document.get("pipeline_version_reference") or {}
    found = _Steps(nodes, state, cancelled_at)

    return RunStatus(
        run_id=document.get("run_id", ""),
        name=document.get("display_name", ""),
        state=state,
        created=read_time(document.get("created_at")),
        ended=read_time(document.get("finished_at")),
        workflow=nodes.workflow,
        pipeline_id=reference.get("pipeline_id", ""),
        version_id=reference.get("pipeline_version_id", ""),
        recurring_run_id=document.get("recurring_run_id", ""),
        pipeline_root=(document.get("runtime_config") or {}).get("pipeline_root", ""),
        steps=tuple(found.of_graph(steps) if steps else found.by_start()),
        failed_drivers=tuple(found.failed_drivers()) if state == RunState.FAILED else (),
    )


def _run_state(document: Mapping[str, Any]) -> tuple[RunState, datetime | None]:
    """State of the run, and when it was told to cancel.

    KFP has no state for a cancelled run other than FAILED.
    """
    state = _KFP_RUN_STATES.get(document.get("state", ""), RunState.PENDING)
    cancelling = [
        item for item in document.get("state_history") or [] if item.get("state") == "CANCELING"
    ]
    if not cancelling:
        return state, None

    return (RunState.CANCELLED if state == RunState.FAILED else state), read_time(
        cancelling[0].get("update_time")
    )


class _Steps:
    """Steps of a run among Argo's nodes."""

    def __init__(self, nodes: Nodes, run: RunState, cancelled_at: datetime | None) -> None:
        self._nodes, self._run, self._cancelled_at = nodes, run, cancelled_at

    def of_graph(self, names: Sequence[str]) -> list[StepStatus]:
        """One status for each name, also where the run has no node of it."""
        return [status for name in names for status in self._statuses(name) or [self._absent(name)]]

    def by_start(self) -> list[StepStatus]:
        """Steps that have a node, in order of their start."""
        named = {node.display for node in self._nodes.items if self._may_be_step(node)}
        found = [status for name in sorted(named) for status in self._statuses(name)]
        return sorted(found, key=lambda step: (step.start is None, str(step.start), step.name))

    def failed_drivers(self) -> list[FailedDriver]:
        """Failed drivers of groups; that of a step is told with the step."""
        found = []
        for node in self._nodes.items:
            if node.display.endswith(DRIVER_SUFFIX) and node.state == "FAILED" and node.name:
                name = node.display.removesuffix(DRIVER_SUFFIX)
                if name.startswith("iteration"):  # a loop's, which stands inside the loop's node
                    name = re.sub(r"\(.*", "", node.name.split(".")[-2])
                if not self._may_be_step(node) and not self._statuses(name):
                    found.append(FailedDriver(name, node.name))

        return found

    def _may_be_step(self, node: Node) -> bool:
        if node.is_attempt or node.display in (EXECUTOR, self._nodes.workflow):
            return False
        if _COMPILED_GROUP.fullmatch(node.display) or node.display.endswith(DRIVER_SUFFIX):
            return False
        return self._nodes.is_step(node) if node.name else not node.state or node.state == "SKIPPED"

    def _statuses(self, name: str) -> list[StepStatus]:
        """Return one status for each node of this name.

        A loop has several nodes; before there is one, its driver stands for it.
        """
        nodes = [node for node in self._nodes.displayed(name) if self._may_be_step(node)]
        drivers = self._nodes.displayed(name + DRIVER_SUFFIX)
        if len(nodes) < 2 and drivers:
            failed = drivers[-1].state == "FAILED"
            if failed or not nodes:
                return [self._from_driver(name, drivers[-1])]

        several = len(nodes) > 1
        titles = [f"{name} ({index})" if several else name for index in range(1, len(nodes) + 1)]

        return [self._from_node(title, node) for title, node in zip(titles, nodes, strict=True)]

    def _from_driver(self, name: str, driver: Node) -> StepStatus:
        if driver.state == "FAILED":
            state = self._failed_at(driver.end)
            return StepStatus(
                name, state, driver.start, driver.end, node=driver.name, driver_failed=True
            )
        if not driver.state:
            return StepStatus(name, StepState.SKIPPED, node=driver.name)
        return StepStatus(name, self._unreported(StepState.WAITING), node=driver.name)

    def _from_node(self, name: str, node: Node) -> StepStatus:
        executor = self._nodes.executor(node)
        n_attempts = attempts(executor) if executor else 0
        state = self._state(node, executor)
        started = state not in (StepState.SKIPPED, StepState.WAITING)

        return StepStatus(
            name,
            state,
            node.start if started else None,
            node.end if started else None,
            n_attempts,
            node.name,
        )

    def _state(self, node: Node, executor: Node | None) -> StepState:
        if node.state == "SUCCEEDED":
            skipped = executor is not None and executor.state == "SKIPPED"
            return StepState.CACHED if skipped else StepState.DONE

        if node.state == "FAILED":
            return self._failed_at(node.end)
        if node.state in ("", "SKIPPED"):
            return StepState.SKIPPED

        started = executor is not None and self._nodes.pod(executor).state == "RUNNING"

        return self._unreported(StepState.RUNNING if started else StepState.WAITING)

    def _unreported(self, state: StepState) -> StepState:
        """State of a step that had not ended when KFP last read the nodes.

        Argo compresses the nodes of a large Workflow; from then on KFP reports the state of the run
        and no node.
        """
        if self._run not in ENDED_RUN:
            return state
        return StepState.DONE if self._run == RunState.SUCCEEDED else StepState.UNKNOWN

    def _failed_at(self, end: datetime | None) -> StepState:
        cancelled = self._cancelled_at is not None and end is not None and end >= self._cancelled_at
        return StepState.CANCELLED if cancelled else StepState.FAILED

    def _absent(self, name: str) -> StepStatus:
        """Return the state of a task without a node.

        Argo makes the nodes of a group's tasks when the group starts.
        """
        if self._run == RunState.SUCCEEDED:
            return StepStatus(name, StepState.DONE)
        return StepStatus(name, StepState.SKIPPED if self._run in ENDED_RUN else StepState.WAITING)


def _shown(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None
