"""The graph of a compiled pipeline: order, critical path and picture."""

from typing import Any

import pytest
from google.protobuf import json_format

from pipelines.graph import critical_path, mermaid, nodes, steps_of
from pipelines.parameters import Variant
from pipelines.resources import load_profile
from pipelines.stage1 import stage1


def _task(component: str, *after: str) -> dict[str, Any]:
    return {"componentRef": {"name": component}, "dependentTasks": list(after)}


SMALL: dict[str, Any] = {
    "root": {
        "dag": {"tasks": {"z-first": _task("comp-z"), "group": _task("comp-group", "z-first")}}
    },
    "components": {
        "comp-z": {"executorLabel": "z"},
        "comp-group": {"dag": {"tasks": {"b": _task("comp-z"), "a": _task("comp-z", "b")}}},
    },
}


def test_steps_stand_in_an_order_in_which_they_can_run() -> None:
    assert steps_of(SMALL) == ["z-first", "b", "a"]
    assert [(node.name, node.group) for node in nodes(SMALL) if node.is_group] == [("group", ())]
    assert [node.group for node in nodes(SMALL) if node.name == "a"] == [("group",)]


def test_the_critical_path_counts_two_pods_for_each_step_and_one_for_each_group() -> None:
    path = critical_path(SMALL)
    assert path.names == ("z-first", "b", "a")
    assert (path.pods, path.driver_only) == (1 + 2 + 1 + 2 + 2, 2)


def test_the_picture_has_groups_as_boxes_around_their_steps() -> None:
    assert mermaid(SMALL).splitlines() == [
        "flowchart TD",
        "  z-first",
        "  subgraph group",
        "    b",
        "    a",
        "    b --> a",
        "  end",
        "  z-first --> group",
    ]


@pytest.mark.parametrize(
    "variant", [Variant(), Variant("labelled", ("full", "frozen", "lora", "dora"))]
)
def test_the_root_fits_a_screen_and_few_levels_only_open_a_group(variant: Variant) -> None:
    spec = json_format.MessageToDict(stage1(load_profile("a6000x2"), variant).pipeline_spec)
    root = [node.name for node in nodes(spec) if not node.group]
    assert len(root) <= 7
    assert critical_path(spec).driver_only == 3
    names = [node.name for node in nodes(spec)]
    assert len(set(names)) == len(names)
