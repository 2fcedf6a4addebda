"""How KFP's drivers find the inputs of every task, nested pipelines included.

Sources are files of Kubeflow Pipelines 2.17.0 below backend/src/v2. Conditions, loops and OneOf are
refused here, as `rules` refuses them in a compiled pipeline.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import NamedTuple

from tests.pipelines.backend.specs import Compiled, Json, RefusedError

# What a parameter's value must be in JSON, by the type the spec declares
# (driver/resolve.go:202-252).
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


class Artifact(NamedTuple):
    """An artifact of a run. number: ML Metadata's id, by which cache keys know it.

    Name: of the producer's output.
    """

    number: int
    producer: str
    name: str


@dataclass(frozen=True)
class Inputs:
    """Resolved inputs of a task or of a group."""

    parameters: dict[str, Json] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """What a task or a group left."""

    parameters: dict[str, Json] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """A task as its driver sees it. path: names of the groups around it, outermost first."""

    name: str
    path: tuple[str, ...]
    task: Json
    component: Json
    inputs: Inputs


Step = Callable[[Execution], Outputs]
# Output parameters of a step by its name and input parameters, in place of running its container.
OutputsOf = Callable[[str, Mapping[str, Json]], Mapping[str, Json]]


def walk(compiled: Compiled, arguments: Mapping[str, Json], run: Step) -> list[Execution]:
    """Go through a run in the order of its graph: `run` gets every step and returns its outputs.

    Returns steps and groups in that order; a group comes before the tasks in it. Raises
    RefusedError where a driver of the real back end would fail.
    """
    found: list[Execution] = []
    inputs = Inputs({**_root_defaults(compiled), **arguments})
    _group(compiled, "root", (), inputs, run, found)
    return found


def _root_defaults(compiled: Compiled) -> dict[str, Json]:
    """compiler/argocompiler/argo.go:96"""
    return {
        name: spec.get("defaultValue")
        for name, spec in compiled.parameters.items()
        if "defaultValue" in spec or spec.get("isOptional")
    }


def _group(
    compiled: Compiled,
    component: str,
    path: tuple[str, ...],
    inputs: Inputs,
    run: Step,
    found: list[Execution],
) -> Outputs:
    dag = compiled.groups[component]["dag"]
    outputs: dict[str, Outputs] = {}
    for name in _in_order(dag["tasks"]):
        task = dag["tasks"][name]
        reference = task["componentRef"]["name"]
        spec = compiled.components[reference]
        execution = Execution(name, path, task, spec, _resolve(name, task, spec, inputs, outputs))
        found.append(execution)
        if "dag" in spec:
            outputs[name] = _group(compiled, reference, (*path, name), execution.inputs, run, found)
        else:
            outputs[name] = run(execution)
    return _group_outputs(component, dag.get("outputs", {}), outputs)


def _in_order(tasks: Mapping[str, Json]) -> list[str]:
    """Names of the tasks, producers first, otherwise alphabetical (compiler/argocompiler/dag.go:58,
    659).
    """
    graph = {}
    for name in sorted(tasks):
        task = tasks[name]
        if "condition" in task.get("triggerPolicy", {}) or "strategy" in task.get(
            "triggerPolicy", {}
        ):
            raise RefusedError(f"{name}: conditions and exit handlers are not modelled")
        if "parameterIterator" in task or "artifactIterator" in task:
            raise RefusedError(f"{name}: loops are not modelled")
        inputs = task.get("inputs", {})
        sources = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
        produced = [s.get("taskOutputParameter") or s.get("taskOutputArtifact") for s in sources]
        producers = [source["producerTask"] for source in produced if source]
        graph[name] = sorted({*task.get("dependentTasks", []), *producers})
    return list(TopologicalSorter(graph).static_order())


def _resolve(
    name: str, task: Json, component: Json, parent: Inputs, siblings: Mapping[str, Outputs]
) -> Inputs:
    """driver/resolve.go:102: `parent` are the inputs of the group, `siblings` the outputs of the
    tasks in it.
    """
    wanted = task.get("inputs", {})
    declared = component.get("inputDefinitions", {}).get("parameters", {})
    parameters = _group_defaults(declared, wanted) if "dag" in component else {}
    for key, source in wanted.get("parameters", {}).items():
        value = _parameter(name, key, source, parent, siblings)
        if value is not None:
            parameters[key] = value
        elif not declared.get(key, {}).get("isOptional"):
            raise RefusedError(
                f"{name}: {key} is not optional and gets null (driver/resolve.go:339)"
            )

    for key, spec in declared.items():
        if key in parameters:
            parameters[key] = _typed(name, key, spec, parameters[key])
        elif not spec.get("isOptional"):
            raise RefusedError(
                f"{name}: {key} is not optional and has no value (driver/resolve.go:192)"
            )
    artifacts = {
        key: _artifact(name, key, source, parent, siblings)
        for key, source in wanted.get("artifacts", {}).items()
    }
    return Inputs(parameters, _as_recorded(name, artifacts) if "dag" in component else artifacts)


def _group_defaults(declared: Mapping[str, Json], wanted: Json) -> dict[str, Json]:
    """driver/resolve.go:307: a group hands its defaults on, a step resolves them inside its
    container.
    """
    missing = {
        key: spec for key, spec in declared.items() if key not in wanted.get("parameters", {})
    }
    return {
        key: spec.get("defaultValue") for key, spec in missing.items() if spec.get("isOptional")
    }


def _parameter(
    name: str, key: str, source: Json, parent: Inputs, siblings: Mapping[str, Outputs]
) -> Json:
    """driver/resolve.go:375"""
    if "parameterExpressionSelector" in source:
        raise RefusedError(f"{name}: {key} selects a part of a value, which is not modelled")
    if "componentInputParameter" in source:
        wanted = source["componentInputParameter"]
        if wanted not in parent.parameters:
            raise RefusedError(
                f"{name}: the group has no parameter {wanted} (driver/resolve.go:396)"
            )
        return parent.parameters[wanted]
    if "taskOutputParameter" in source:
        producer = source["taskOutputParameter"]
        return siblings[producer["producerTask"]].parameters.get(producer["outputParameterKey"])
    return source["runtimeValue"]["constant"]


def _artifact(
    name: str, key: str, source: Json, parent: Inputs, siblings: Mapping[str, Outputs]
) -> Artifact:
    """driver/resolve.go:528"""
    if "componentInputArtifact" in source:
        wanted = source["componentInputArtifact"]
        if wanted not in parent.artifacts:
            raise RefusedError(
                f"{name}: the group has no artifact {wanted} for {key} (driver/resolve.go:551)"
            )
        return parent.artifacts[wanted]
    producer = source["taskOutputArtifact"]
    return siblings[producer["producerTask"]].artifacts[producer["outputArtifactKey"]]


def _as_recorded(name: str, artifacts: dict[str, Artifact]) -> dict[str, Artifact]:
    """metadata/client.go:1161-1190: the inputs of a group are found again by the artifact's id."""
    names: dict[int, str] = {}
    for key, artifact in artifacts.items():
        other = names.setdefault(artifact.number, key)
        if other != key:
            raise RefusedError(
                f"{name}: {other} and {key} are one artifact, which a group gets under one name"
                " only"
            )
    return artifacts


def _typed(name: str, key: str, spec: Json, value: Json) -> Json:
    """driver/resolve.go:169-256: text is made of anything, other types must be what they say."""
    kind = spec["parameterType"]
    if kind == "STRING" and not isinstance(value, str | None):
        return _text(value)
    matches = isinstance(value, JSON_TYPES.get(kind, ())) and isinstance(value, bool) == (
        kind == "BOOLEAN"
    )
    if value is not None and not matches:
        raise RefusedError(f"{name}: {key}={value!r} is not {kind} (driver/resolve.go:219)")
    return value


def _text(value: Json) -> str:
    """metadata/converter.go:15"""
    return json.dumps(value, separators=(",", ":"))


def _group_outputs(component: str, declared: Json, outputs: Mapping[str, Outputs]) -> Outputs:
    """driver/resolve.go:1036: which task inside made a group's output.

    No state is looked at where there is one.
    """
    parameters, artifacts = {}, {}
    for key, source in declared.get("parameters", {}).items():
        if "valueFromParameter" not in source:
            raise RefusedError(f"{component}: OneOf is not modelled")
        made = source["valueFromParameter"]
        parameters[key] = outputs[made["producerSubtask"]].parameters[made["outputParameterKey"]]
    for key, source in declared.get("artifacts", {}).items():
        if len(source["artifactSelectors"]) != 1:
            raise RefusedError(f"{component}: OneOf is not modelled")
        (made,) = source["artifactSelectors"]
        artifacts[key] = outputs[made["producerSubtask"]].artifacts[made["outputArtifactKey"]]
    return Outputs(parameters, artifacts)
