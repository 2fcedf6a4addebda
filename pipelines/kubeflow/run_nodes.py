"""Argo's nodes of a run with their full names, rebuilt from the flat list that KFP's API gives.

`task_details` of KFP 2.17 has one entry for every node of the Workflow: display name, state, times,
and the ids of the node's children, but neither its own id nor its parent
(backend/src/apiserver/server/api_converter.go). Argo computes an id from the node's full name by
FNV-1a (pkg/apis/workflow/v1alpha1/workflow_types.go, NodeID). A full name is that of the enclosing
node, a dot and the display name. So the ids of an entry's children tell whether a guessed name is
right.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

EXECUTOR = "executor"  # the task inside a step's node that runs its container
DRIVER_SUFFIX = "-driver"
_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193
_ATTEMPT = re.compile(
    r"\(\d+\)$"
)  # Argo wraps a node that may be retried: X is the wrapper, X(0) its first attempt
_MOST_ATTEMPTS = 20


@dataclass(frozen=True)
class Node:
    """One node of Argo's Workflow.

    name: full name, "" where no child tells it. state: KFP's word, "" for a node that Argo left
    out. start, end: None where it has not begun or not ended. children: the numbers at the end of
    the children's ids.
    """

    display: str
    name: str
    state: str
    start: datetime | None
    end: datetime | None
    children: frozenset[int]

    @property
    def is_attempt(self) -> bool:
        """Whether the node is one attempt of another."""
        return bool(_ATTEMPT.search(self.display))


class Nodes:
    """All nodes of a run. workflow: name of the Workflow, "" before it has nodes."""

    def __init__(self, details: Sequence[Mapping[str, Any]]) -> None:
        """Read `run_details.task_details`.

        Entries without a display name are executions in ml-metadata, no nodes.
        """
        nodes = [_node(entry) for entry in details if entry.get("display_name")]
        self.workflow = next((_workflow(entry) for entry in details if _child_ids(entry)), "")
        self.items = tuple(_with_names(self.workflow, nodes))
        self._by_name = {node.name: node for node in self.items if node.name}

    def displayed(self, display: str) -> list[Node]:
        """Return the nodes with this display name in order of their start."""
        found = [node for node in self.items if node.display == display]
        return sorted(found, key=lambda node: (node.start is None, node.start, node.name))

    def is_step(self, node: Node) -> bool:
        """Return whether an executor is directly inside the node: then the node is a step."""
        insides = [node.name, *(f"{node.name}({attempt})" for attempt in range(_MOST_ATTEMPTS))]
        known = [self._by_name[name] for name in insides if node.name and name in self._by_name]
        return any(_hash(f"{inside.name}.{EXECUTOR}") in inside.children for inside in known)

    def executor(self, step: Node) -> Node | None:
        """Return the node that runs the step's container; None before there is one."""
        for inside in (
            step.name,
            *(f"{step.name}({attempt})" for attempt in range(_MOST_ATTEMPTS)),
        ):
            if step.name and f"{inside}.{EXECUTOR}" in self._by_name:
                return self._by_name[f"{inside}.{EXECUTOR}"]

        # One without children has no name: it is found by its time and state. A cached step takes
        # no time.
        unnamed = [
            node for node in self.displayed(EXECUTOR) if not node.name and node.start is not None
        ]
        took_no_time = step.start == step.end

        return min(
            unnamed,
            key=lambda node: (
                _seconds_apart(node, step),
                (node.state == "SKIPPED") != took_no_time,
            ),
            default=None,
        )

    def pod(self, executor: Node) -> Node:
        """Return the node of the executor's last attempt.

        It is found by its time, because pods have no children.
        """
        n_attempts = attempts(executor)
        if not n_attempts:
            return executor

        last = self.displayed(f"{executor.display}({n_attempts - 1})")
        expected = executor if n_attempts == 1 else replace(executor, start=executor.end)

        return min(
            last,
            key=lambda node: (
                (node.end is None) != (executor.end is None),
                _seconds_apart(node, expected),
            ),
            default=executor,
        )


def node_id(workflow: str, name: str) -> str:
    """Return the id that Argo gives the node with this full name."""
    return workflow if name == workflow else f"{workflow}-{_hash(name)}"


def attempts(node: Node) -> int:
    """Return how often Argo started the node; 0 where it is not wrapped for retries."""
    if not node.name:
        return 0
    return sum(
        _hash(f"{node.name}({attempt})") in node.children for attempt in range(_MOST_ATTEMPTS)
    )


def read_time(text: str | None) -> datetime | None:
    """Read a time of the API.

    None for what stands for no time there: nothing, the year 1, and 1970.
    """
    if not text:
        return None
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time if time.year > 1970 else None


def _node(entry: Mapping[str, Any]) -> Node:
    start, end = read_time(entry.get("start_time")), read_time(entry.get("end_time"))
    if start is not None and end is not None and end < start:
        end = None
    children = frozenset(int(name.rpartition("-")[2]) for name in _child_ids(entry))
    return Node(entry["display_name"], "", entry.get("state", ""), start, end, children)


def _child_ids(entry: Mapping[str, Any]) -> list[str]:
    """Ids of the children; KFP calls them names of pods, which they are not."""
    names = [child.get("pod_name", "") for child in entry.get("child_tasks") or []]
    return [name for name in names if name.rpartition("-")[2].isdecimal()]


def _workflow(entry: Mapping[str, Any]) -> str:
    return _child_ids(entry)[0].rpartition("-")[0]


def _with_names(workflow: str, nodes: Iterable[Node]) -> Iterator[Node]:
    """Name each node whose children confirm the guess, from the Workflow's own node inwards."""
    unnamed = list(nodes)
    has_attempts = any(node.display == f"{workflow}(0)" for node in unnamed)
    drivers = [node.display for node in unnamed if node.display.endswith(DRIVER_SUFFIX)]
    open_nodes = [Node(workflow, workflow, "", None, None, frozenset())]

    while open_nodes:
        around = open_nodes.pop()
        still_unnamed = []
        for node in unnamed:
            guess = _guess(around, node)
            by_task = node.is_attempt or not has_attempts
            if guess == node.display == workflow or (
                guess and _confirmed(guess, node, drivers if by_task else [])
            ):
                named = replace(node, name=guess)
                open_nodes.append(named)
                yield named
            else:
                still_unnamed.append(node)

        unnamed = still_unnamed

    yield from unnamed


def _guess(around: Node, node: Node) -> str:
    """Full name that the node would have directly inside `around`, or as one of its attempts."""
    if node.display == around.name:
        return node.display
    if node.is_attempt:
        wraps = node.display[: node.display.rindex("(")] == around.display
        return around.name + node.display[len(around.display) :] if wraps else ""
    return f"{around.name}.{node.display}"


def _confirmed(name: str, node: Node, drivers: Sequence[str]) -> bool:
    """Return whether a child can be the first node inside a node of this name.

    It is the first attempt, or a task without dependencies.
    """
    if _hash(f"{name}(0)") in node.children:
        return True
    return any(_hash(f"{name}.{task}") in node.children for task in (EXECUTOR, *drivers))


def _seconds_apart(node: Node, other: Node) -> float:
    if node.start is None or other.start is None:
        return float("inf")
    return abs((node.start - other.start).total_seconds())


@functools.lru_cache(maxsize=65536)
def _hash(name: str) -> int:
    """32-bit FNV-1a, the number at the end of the id of the node with this full name."""
    value = _FNV_OFFSET
    for byte in name.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value
