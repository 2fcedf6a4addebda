"""Nodes of a run in the form in which KFP's API gives them, for states that no recording has.

Ids of children are computed as Argo does; tests/pipelines/test_kfp_server.py compares the form with
the recordings.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from pipelines.kubeflow.run_nodes import node_id

Task = dict[str, Any]
START = "2026-01-01T00:00:00Z"
END = "2026-01-01T00:01:00Z"
NOT_ENDED = "0001-01-01T00:00:00Z"
# Of the step's node, its executor and its pod.
_STATES = {
    "pending": ("RUNNING", "RUNNING", "PENDING"),
    "running": ("RUNNING", "RUNNING", "RUNNING"),
    "done": ("SUCCEEDED", "SUCCEEDED", "SUCCEEDED"),
    "failed": ("FAILED", "FAILED", "FAILED"),
}


def task_details(
    workflow: str,
    steps: Mapping[str, str],
    *,
    root: str = "RUNNING",
    attempts: Mapping[str, int] | None = None,
) -> list[Task]:
    """Return `task_details` of a run; `steps`: state by name, or by group/name.

    States: pending, running, done, failed, cached, omitted, driver (its driver runs),
    driver-failed. attempts: number of pods of a step, 1 where not given.
    """
    made: dict[str, Task] = {}
    inside_root = f"{workflow}(0).root(0)"
    _wrapped(made, workflow, workflow, root, [f"{workflow}(0).root-driver"])
    _wrapped(made, f"{workflow}(0).root-driver", "root-driver", "SUCCEEDED", [])
    _wrapped(made, f"{workflow}(0).root", "root", root, [f"{inside_root}.{_first(steps)}-driver"])
    for path, state in steps.items():
        *groups, name = path.split("/")
        around = inside_root
        for group in groups:
            _wrapped(made, f"{around}.{group}-driver", f"{group}-driver", "SUCCEEDED", [])
            _wrapped(made, f"{around}.{group}", group, root, [f"{around}.{group}(0).{name}-driver"])
            around = f"{around}.{group}(0)"
        _step(made, f"{around}.{name}", name, state, (attempts or {}).get(name, 1))
    for entry in made.values():
        entry["child_tasks"] = [
            {"pod_name": node_id(workflow, child)} for child in entry.pop("children")
        ]
        if not entry["child_tasks"]:
            del entry["child_tasks"]
    return list(made.values())


def _first(steps: Mapping[str, str]) -> str:
    return next(iter(steps), "nothing").split("/")[0]


def _step(made: dict[str, Task], full: str, name: str, state: str, n_attempts: int) -> None:
    driver = {"driver": "RUNNING", "driver-failed": "FAILED", "omitted": ""}.get(state, "SUCCEEDED")
    if driver:
        _wrapped(made, f"{full}-driver", f"{name}-driver", driver, [])
    else:
        made[f"{full}-driver"] = _entry(f"{name}-driver", "", [])
    if state == "driver":
        return
    if state in ("driver-failed", "omitted"):
        made[full] = _entry(name, "", [])
        return

    inside = f"{full}(0).executor"
    if state == "cached":
        _wrapped(made, full, name, "SUCCEEDED", [inside], end=START)
        made[inside] = _entry("executor", "SKIPPED", [], end=START)
        return
    node, executor, pod = _STATES[state]
    _wrapped(made, full, name, node, [inside])
    pods = [f"{inside}({attempt})" for attempt in range(n_attempts)]
    made[inside] = _entry("executor", executor, pods)
    for attempt, pod_name in enumerate(pods):
        made[pod_name] = _entry(
            f"executor({attempt})", pod if attempt == n_attempts - 1 else "FAILED", []
        )


def _wrapped(
    made: dict[str, Task], full: str, display: str, state: str, inside: list[str], *, end: str = ""
) -> None:
    """A node and its first attempt, as with KFP's stock controller settings every node has."""
    made[full] = _entry(display, state, [f"{full}(0)"], end=end)
    made[f"{full}(0)"] = _entry(f"{display}(0)", state, inside, end=end)


def _entry(display: str, state: str, children: list[str], *, end: str = "") -> Task:
    ended = end or (NOT_ENDED if state in ("RUNNING", "PENDING") else END)
    history = {"update_time": START} | ({"state": state} if state else {})
    entry: Task = {
        "create_time": START,
        "display_name": display,
        "start_time": START,
        "end_time": ended,
        "run_id": "run",
        "state_history": [history],
        "task_id": str(uuid.uuid4()),
        "children": children,
    }
    return entry | ({"state": state} if state else {})
