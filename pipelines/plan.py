"""What would a run on this machine do? Told from the cache, without running anything but the fingerprint."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp.local import io
from kfp.local.cache import LocalCache
from kfp.local.orchestrator import task_spec_utils
from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.local.utils import struct_to_executor_spec
from kfp.pipeline_spec import pipeline_spec_pb2

from components.fingerprint_source.config import FingerprintConfig
from components.fingerprint_source.step import run as fingerprint
from pipelines.local import cache_root
from pipelines.local_kfp import one_of_artifacts
from pipelines.parameters import PHASES, of_phase
from pipelines.resources import PROFILES
from pipelines.stage1 import stage1

_ALWAYS = "fingerprint-source"
_ORDER = [phase.replace("_", "-") for phase in PHASES]
Outputs = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A step of a run. detail: of a loop's branch, what it runs for; state: "cached", "run" or "run, always"."""

    step: str
    detail: str
    state: str


def plan(values: Mapping[str, Any], output: Path) -> list[Planned]:
    """The steps of a run with `values` below `output`, in order of execution."""
    spec = stage1(PROFILES["local"]).pipeline_spec
    store = io.IOStore()
    arguments = OrchestratorUtils.join_user_inputs_and_defaults(dict(values), spec.root.input_definitions)
    for name, value in arguments.items():
        store.put_parent_input(name, value)
    walk = _Walk(spec, LocalCache(str(cache_root(output))), values)
    with one_of_artifacts():
        walk.tasks(spec.root.dag, store, "")
    return walk.rows


@dataclass
class _Walk:
    """Goes through the pipeline as kfp.local does, and looks into its cache in the place of running.

    A store has the outputs that are known; what needs others is to be run.
    """

    spec: pipeline_spec_pb2.PipelineSpec
    cache: LocalCache
    values: Mapping[str, Any]
    rows: list[Planned] = field(default_factory=list)

    def tasks(self, dag: Any, store: io.IOStore, detail: str) -> None:
        """Everything in one group."""
        for name in sorted(dag.tasks, key=self._position):
            task = dag.tasks[name]
            condition = task.trigger_policy.condition
            if condition and not ConditionEvaluator.evaluate_condition(condition, store):
                continue
            if task.WhichOneof("iterator"):
                outputs = self._loop(name, task, store)
            elif self._component(task).WhichOneof("implementation") == "dag":
                outputs = self._group(task, store, detail)
            else:
                outputs = self._step(name, task, store, detail)
            for key, value in (outputs or {}).items():
                store.put_task_output(name, key, value)

    def _step(self, name: str, task: Any, store: io.IOStore, detail: str) -> Outputs | None:
        step = _phase(name)
        if step == _ALWAYS:
            self.rows.append(Planned(step, detail, "run, always"))
            return fingerprint(FingerprintConfig.from_mapping(of_phase("fingerprint_source", self.values)))._asdict()
        outputs = self._cached(task, store)
        self.rows.append(Planned(step, detail, "run" if outputs is None else "cached"))
        return outputs

    def _group(self, task: Any, store: io.IOStore, detail: str) -> Outputs | None:
        """A group of its own store; its outputs where all are known."""
        inner = io.IOStore(parent=store)
        for kind in ("parameters", "artifacts"):
            for name, source in getattr(task.inputs, kind).items():
                wanted = pipeline_spec_pb2.TaskInputsSpec()
                getattr(wanted, kind)[name].CopyFrom(source)
                with contextlib.suppress(ValueError):  # not known yet
                    inner.put_parent_input(name, OrchestratorUtils.make_task_arguments(wanted, store)[name])
        dag = self._component(task).dag
        self.tasks(dag, inner, detail)
        try:
            return dict(OrchestratorUtils.get_dag_outputs(dag.outputs, inner))
        except ValueError:
            return None

    def _loop(self, name: str, task: Any, store: io.IOStore) -> Outputs | None:
        """A loop over a parameter of the pipeline; its outputs are lists."""
        items = store.get_parent_input(task.parameter_iterator.items.input_parameter.split("--")[-1])
        found = []
        for item in items:
            branch = task_spec_utils.create_parameter_loop_iteration_task_spec(task, item, name)
            found.append(self._group(branch, store, str(item)))
        known = [outputs for outputs in found if outputs is not None]
        if len(known) < len(found):
            return None
        return {key: [outputs[key] for outputs in known] for key in self._component(task).dag.outputs.artifacts}

    def _cached(self, task: Any, store: io.IOStore) -> Outputs | None:
        """The task's outputs where kfp.local would take them from its cache; the key is made as kfp.local makes it."""
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
        outputs: Outputs | None = self.cache.get(key)
        return outputs

    def _component(self, task: Any) -> Any:
        return self.spec.components[task.component_ref.name]

    def _position(self, name: str) -> int:
        """Of a step its phase's; of a group that of its first step."""
        if _phase(name) in _ORDER:
            return _ORDER.index(_phase(name))
        return min(self._position(inner) for inner in self.spec.components[f"comp-{name}"].dag.tasks)


def _phase(name: str) -> str:
    """KFP numbers the tasks of a component that is used more than once."""
    return re.sub(r"-[0-9]+$", "", name)
