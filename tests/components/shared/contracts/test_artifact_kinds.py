"""The table of artifact kinds agrees with KFP types, components, steps and call sites."""

import ast
import importlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components import artifact_types
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.step import path_parameters
from components.shared.data.splits import SPLITS

ROOT = Path(__file__).resolve().parents[4]
PHASES = sorted(file.parent.name for file in (ROOT / "components").glob("*/component.py"))
TYPES = {
    name: value
    for name, value in vars(artifact_types).items()
    if isinstance(value, type) and issubclass(value, dsl.Artifact)
}


def test_a_member_is_the_name_and_has_content_and_reader() -> None:
    assert Kind.VAL_TEST_LOGITS == "ValTestLogits"
    assert {Kind.POLICY: 1}["Policy"] == 1
    for kind in Kind:
        assert kind.content.endswith("."), kind
        assert kind.readers, kind
        assert kind.data_split in (None, *SPLITS)


def test_each_kind_that_travels_between_phases_has_one_kfp_type() -> None:
    assert set(TYPES) == set(Kind) - {Kind.TRAINING_STATE, Kind.NODE_RESULTS}
    for name, artifact in TYPES.items():
        assert artifact.schema_title == f"system.{name}"
        assert artifact.__doc__ == Kind(name).content


def test_kinds_that_carry_predictions_belong_to_a_split() -> None:
    for kind in Kind:
        assert (kind.data_split is not None) == kind.startswith(("Val", "Train")) or (
            kind is Kind.TRAINING_STATE
        )
    assert [Kind.logits_of(split) for split in SPLITS[1:]] == [
        "ValSelectLogits",
        "ValCalibLogits",
        "ValTestLogits",
    ]
    with pytest.raises(KeyError):
        Kind.logits_of("TRAIN")


@pytest.mark.parametrize("phase", PHASES)
def test_a_step_has_a_path_for_each_artifact_of_its_component(phase: str) -> None:
    spec = _component(phase)
    roles = path_parameters(importlib.import_module(f"components.{phase}.step").run)
    artifacts = _kinds(spec.inputs) | _kinds(spec.outputs)
    parameters = {_parameter(name): kind for name, kind in artifacts.items() if kind in TYPES}
    assert set(parameters) <= set(roles)
    for name in parameters:
        direction = "output" if name in (spec.outputs or {}) else "input"
        assert roles[name].startswith(f"{direction} director")


def test_the_readers_are_the_phases_that_take_the_kind_as_an_input() -> None:
    readers: dict[str, set[str]] = defaultdict(set)
    for phase in PHASES:
        for spec in _components(phase):
            for kind in _kinds(spec.inputs).values():
                readers[kind].add(phase)
    for kind in Kind:
        assert {name for name in kind.readers if name in PHASES} == readers[kind], kind


def test_no_module_spells_a_kind() -> None:
    """Calls that verify or write an artifact name its kind by the table."""
    spelled = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {value.value}"
        for folder in ("components", "pipelines")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call)
        for value in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(value, ast.Constant) and value.value in set(Kind)
        if ast.unparse(node.func).rpartition(".")[2] in _TAKE_A_KIND
    ]
    assert not spelled


_TAKE_A_KIND = ("verify_dir", "writing", "upload_artifact", "download_artifact")


def _components(phase: str) -> list[Any]:
    """All components of a phase: ingest has one for its parts, and one that merges them."""
    module = importlib.import_module(f"components.{phase}.component")
    return [
        value.component_spec for value in vars(module).values() if hasattr(value, "component_spec")
    ]


def _component(phase: str) -> Any:
    return getattr(importlib.import_module(f"components.{phase}.component"), phase).component_spec


def _parameter(name: str) -> str:
    """The step's parameter; numbered inputs of a component are a list to the step."""
    stem, _, number = name.rpartition("_")
    if not number.isdigit():
        return name
    return stem if stem.endswith("s") else f"{stem}s"


def _kinds(specs: dict[str, Any] | None) -> dict[str, str]:
    """Name of each artifact of a component -> name of its type."""
    found = {name: str(spec.type) for name, spec in (specs or {}).items()}
    return {
        name: kind.partition("@")[0].removeprefix("system.")
        for name, kind in found.items()
        if kind.startswith("system.")
    }
