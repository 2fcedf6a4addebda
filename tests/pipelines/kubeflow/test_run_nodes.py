"""Full names of Argo's nodes from the recorded answers.

The oracle is Argo's own annotation of the recorded pods.
"""

from typing import Any

import pytest

from pipelines.kubeflow.run_nodes import Nodes, attempts, node_id, read_time
from tests.pipelines.argo_tasks import task_details
from tests.pipelines.kfp_server import recorded
from tests.recordings.replay import recorded_runs

RUNS = recorded_runs()
# A TaskGroup's children are its iterations, which Argo names beside it, not inside it.
TASK_GROUP = "iteration-iterations"


def _nodes(name: str) -> Nodes:
    return Nodes(RUNS[name]["run_details"]["task_details"])


@pytest.mark.parametrize(
    "pod", recorded("api/pods")["items"], ids=lambda pod: pod["metadata"]["name"]
)
def test_an_id_is_the_one_that_argo_wrote_on_the_pod(pod: dict[str, Any]) -> None:
    annotations = pod["metadata"]["annotations"]
    workflow = pod["metadata"]["labels"]["workflows.argoproj.io/workflow"]
    name = annotations["workflows.argoproj.io/node-name"]
    assert node_id(workflow, name) == annotations["workflows.argoproj.io/node-id"]


@pytest.mark.parametrize("name", RUNS)
def test_every_node_that_has_children_of_its_own_gets_its_name(name: str) -> None:
    nodes = _nodes(name)
    assert nodes.workflow.startswith("streetvision-")
    unnamed = {
        node.display
        for node in nodes.items
        # A driver's first attempt, and what Argo left out, have as children only the nodes that
        # come after them.
        if not node.name
        and node.children
        and node.state
        and not node.display.endswith("-driver(0)")
    }
    assert unnamed <= {TASK_GROUP}


def test_a_name_is_the_path_through_the_groups() -> None:
    nodes = _nodes("run-pod-deleted-then-process-killed")
    names = {node.display: node.name for node in nodes.items}
    assert (
        names["train-baseline"]
        == "streetvision-noif-98c9g(0).root(0).exit-handler-1(0).for-loop-2(0)"
        ".iteration-iterations(0:0)(0)"
        ".iteration-item(0).train-baseline"
    )


def test_the_executor_of_a_step_is_found_among_many_of_the_same_name() -> None:
    nodes = _nodes("run-pod-deleted-then-process-killed")
    (step,) = nodes.displayed("train-baseline")
    executor = nodes.executor(step)
    assert executor is not None
    assert (executor.state, attempts(executor)) == ("FAILED", 2)
    assert nodes.pod(executor).display == "executor(1)"
    (cached,) = nodes.displayed("import-backbone")
    skipped = nodes.executor(cached)
    assert skipped is not None
    assert skipped.state == "SKIPPED"


def test_two_iterations_of_a_loop_have_executors_of_their_own() -> None:
    nodes = _nodes("run-collected-failed")
    executors = [nodes.executor(step) for step in nodes.displayed("train-baseline")]
    assert [executor and executor.state for executor in executors] == ["SUCCEEDED", "SKIPPED"]


def test_groups_are_not_steps() -> None:
    nodes = Nodes(
        task_details(
            "wf-1", {"configure": "done", "train/train-baseline": "running", "evaluate": "omitted"}
        )
    )
    steps = {
        node.display
        for node in nodes.items
        if node.name and not node.is_attempt and nodes.is_step(node)
    }
    assert steps == {"configure", "train-baseline"}


def test_nodes_without_retries_are_named_as_well() -> None:
    # Without KFP's default retry strategy Argo wraps nothing: made from the recorded form, without
    # the attempts.
    def entry(display: str, children: list[str]) -> dict[str, Any]:
        return {
            "display_name": display,
            "state": "SUCCEEDED",
            "start_time": "2026-01-01T00:00:00Z",
            "end_time": "2026-01-01T00:01:00Z",
            "child_tasks": [{"pod_name": node_id("wf", name)} for name in children],
        }

    nodes = Nodes(
        [
            entry("wf", ["wf.root-driver"]),
            entry("root-driver", ["wf.root"]),
            entry("root", ["wf.root.evaluate-driver"]),
            entry("evaluate-driver", ["wf.root.evaluate"]),
            entry("evaluate", ["wf.root.evaluate.executor"]),
            entry("executor", []),
        ]
    )
    (step,) = nodes.displayed("evaluate")
    assert step.name == "wf.root.evaluate"
    assert nodes.is_step(step)
    executor = nodes.executor(step)
    assert executor is not None
    assert executor.display == "executor"


@pytest.mark.parametrize("text", [None, "", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_the_year_1_and_1970_are_no_times(text: str | None) -> None:
    assert read_time(text) is None


def test_a_run_without_nodes_has_none() -> None:
    assert (Nodes([]).workflow, Nodes([]).items) == ("", ())
