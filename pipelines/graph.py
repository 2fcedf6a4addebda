"""The graph of a compiled pipeline: its steps in order, its critical path, its picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """A task of the graph. group: path of the groups around it, outermost first.

    After: tasks of the same group.
    """

    name: str
    group: tuple[str, ...]
    after: tuple[str, ...]
    is_group: bool


@dataclass(frozen=True)
class CriticalPath:
    """The longest chain of pods that wait for each other.

    KFP starts a driver pod for every task and every group, and an executor pod for every task; a
    driver that only opens a group is driver-only.
    """

    names: tuple[str, ...]
    pods: int
    driver_only: int


def nodes(spec: Spec) -> list[Node]:
    """Return all tasks and groups in an order in which they can run.

    A group stands before its tasks.
    """
    return list(_nodes(spec, spec["root"], ()))


def steps_of(spec: Spec) -> list[str]:
    """Return the names of the tasks that run a container, in an order in which they can run."""
    return [node.name for node in nodes(spec) if not node.is_group]


def order_of(dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """Return tasks with their dependencies first; the order is the same for the same graph."""
    sorter = TopologicalSorter({name: sorted(dependencies[name]) for name in sorted(dependencies)})
    return list(sorter.static_order())


def critical_path(spec: Spec) -> CriticalPath:
    """Return the chain with the most pods, from the root's driver on."""
    names, pods, driver_only = _longest(spec, spec["root"])
    return CriticalPath(names, pods, driver_only)


def mermaid(spec: Spec) -> str:
    """Return the graph as a Mermaid flowchart: groups are boxes around their tasks."""
    lines = ["flowchart TD"]
    lines += _mermaid_group(spec, spec["root"], "  ")
    return "\n".join(lines) + "\n"


def _nodes(spec: Spec, component: Spec, group: tuple[str, ...]) -> Iterator[Node]:
    for name, task in _ordered(component):
        inner = _component(spec, task)
        is_group = "dag" in inner
        yield Node(name, group, tuple(sorted(task.get("dependentTasks", []))), is_group)
        if is_group:
            yield from _nodes(spec, inner, (*group, name))


def _longest(spec: Spec, component: Spec) -> tuple[tuple[str, ...], int, int]:
    """Return the longest chain through one group: names of steps, pods, drivers of groups.

    The group's own driver is counted.
    """
    best: dict[str, tuple[tuple[str, ...], int, int]] = {}
    for name, task in _ordered(component):
        inner = _component(spec, task)
        own = _longest(spec, inner) if "dag" in inner else ((name,), 2, 0)
        before = [best[upstream] for upstream in task.get("dependentTasks", [])]
        longest = max(before, key=lambda chain: chain[1], default=((), 0, 0))
        best[name] = (longest[0] + own[0], longest[1] + own[1], longest[2] + own[2])

    names, pods, driver_only = max(best.values(), key=lambda chain: chain[1])

    return names, pods + 1, driver_only + 1


def _mermaid_group(spec: Spec, component: Spec, indent: str) -> Iterator[str]:
    for name, task in _ordered(component):
        inner = _component(spec, task)
        if "dag" in inner:
            yield f"{indent}subgraph {name}"
            yield from _mermaid_group(spec, inner, indent + "  ")
            yield f"{indent}end"
        else:
            yield f"{indent}{name}"

        for upstream in sorted(task.get("dependentTasks", [])):
            yield f"{indent}{upstream} --> {name}"


def _ordered(component: Spec) -> list[tuple[str, Any]]:
    tasks = component["dag"]["tasks"]
    return [
        (name, tasks[name])
        for name in order_of({n: t.get("dependentTasks", []) for n, t in tasks.items()})
    ]


def _component(spec: Spec, task: Spec) -> Any:
    return spec["components"][task["componentRef"]["name"]]
