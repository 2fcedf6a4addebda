"""The plan of a local run: which steps would run, and which would come from the cache.

Walks the graph as kfp.local does, but looks each task up in the cache instead of running it; only
`configure` runs.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format, struct_pb2

from components.configure.attempts import with_attempts
from components.configure.config import ConfigureConfig
from components.configure.step import configured, handed_over
from components.shared.data.attempts import expected_attempt
from pipelines.catalog import pipeline_of
from pipelines.graph import order_of
from pipelines.kfp_private import (
    IOStore,
    OrchestratorUtils,
    pb2_struct_to_python,
    pipeline_spec_pb2,
    struct_to_executor_spec,
)
from pipelines.local.cache import Cache, cache_folder
from pipelines.local.run import recording
from pipelines.names import CONFIGURE
from pipelines.parameters import Variant
from pipelines.resources import LOCAL

_INGEST = "ingest_dataset"
_UNSEEN = "of data that no run has read"

Outputs = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A step of a run; state: "cached", "run" or "run, always"."""

    step: str
    state: str


def plan(
    values: Mapping[str, Any], output: Path, variant: Variant, *, data_are_new: bool = False
) -> list[Planned]:
    """Return the steps of a run with `values` below `output`, in the order in which they run.

    With `data_are_new`, no step that depends on the data is taken from the cache.
    """
    spec = pipeline_of(LOCAL, variant).pipeline_spec
    store = IOStore()
    arguments = OrchestratorUtils.join_user_inputs_and_defaults(
        dict(values), spec.root.input_definitions
    )
    for name, value in arguments.items():
        store.put_parent_input(name, value)

    form = variant.with_form(values)
    walk = _Walk(spec, Cache(str(cache_folder(output))), form, data_are_new)
    with recording(output):
        walk.tasks(spec.root.dag, store)

    return walk.rows


@dataclass
class _Walk:
    """A walk through the graph.

    A store holds the outputs that are known; a task that needs others is to be run.
    """

    spec: pipeline_spec_pb2.PipelineSpec
    cache: Cache
    form: ConfigureConfig
    data_are_new: bool
    rows: list[Planned] = field(default_factory=list)

    def tasks(self, dag: Any, store: IOStore) -> None:
        """Visit everything in one group."""
        for name in order_of(
            {name: list(task.dependent_tasks) for name, task in dag.tasks.items()}
        ):
            task = dag.tasks[name]
            if self._component(task).WhichOneof("implementation") == "dag":
                outputs = self._group(task, store)
            else:
                outputs = self._step(name, task, store)

            for key, value in (outputs or {}).items():
                store.put_task_output(name, key, value)

    def _step(self, name: str, task: Any, store: IOStore) -> Outputs | None:
        if name == CONFIGURE:
            self.rows.append(Planned(name, "run, always"))
            configs = configured(self.form)._asdict()
            if self.data_are_new:
                configs[_INGEST]["source_fingerprint"] = _UNSEEN
            configs = handed_over(with_attempts(configs, count=expected_attempt))._asdict()
            # As kfp.local reads the outputs of a step, where every number is a float.
            outputs = json_format.ParseDict(configs, struct_pb2.Struct())
            return dict(pb2_struct_to_python(outputs))
        outputs = self._cached(task, store)
        self.rows.append(Planned(name, "run" if outputs is None else "cached"))
        return outputs

    def _group(self, task: Any, store: IOStore) -> Outputs | None:
        """Visit a group, which has a store of its own; return its outputs where all are known."""
        inner = IOStore(parent=store)
        for kind in ("parameters", "artifacts"):
            for name, source in getattr(task.inputs, kind).items():
                wanted = pipeline_spec_pb2.TaskInputsSpec()
                getattr(wanted, kind)[name].CopyFrom(source)

                with contextlib.suppress(ValueError):  # not known yet
                    inner.put_parent_input(
                        name, OrchestratorUtils.make_task_arguments(wanted, store)[name]
                    )

        dag = self._component(task).dag
        self.tasks(dag, inner)

        try:
            return dict(OrchestratorUtils.get_dag_outputs(dag.outputs, inner))
        except ValueError:
            return None

    def _cached(self, task: Any, store: IOStore) -> Outputs | None:
        """Return the outputs that kfp.local would take from its cache.

        The key is made as kfp.local makes it.
        """
        try:
            arguments = OrchestratorUtils.make_task_arguments(task.inputs, store)
        except ValueError:  # of what must be run before
            return None

        executor = self.spec.deployment_spec["executors"][self._component(task).executor_label]
        container = struct_to_executor_spec(executor).container
        key = self.cache.compute_key(
            component_name=task.component_ref.name,
            image=container.image,
            full_command=[*container.command, *container.args],
            arguments=arguments,
            env_vars={variable.name: variable.value for variable in container.env},
        )

        return self.cache.get(key)

    def _component(self, task: Any) -> Any:
        return self.spec.components[task.component_ref.name]
