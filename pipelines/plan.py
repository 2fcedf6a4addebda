"""What would a run on this machine do? Told from the cache, without running anything but the fingerprint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp.local import io
from kfp.local.cache import LocalCache
from kfp.local.orchestrator import task_spec_utils
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.local.utils import struct_to_executor_spec
from kfp.pipeline_spec import pipeline_spec_pb2

from components.fingerprint_source.config import FingerprintConfig
from components.fingerprint_source.step import run as fingerprint
from pipelines.local import cache_root
from pipelines.parameters import PHASES, of_phase
from pipelines.resources import PROFILES
from pipelines.stage1 import stage1

_ALWAYS = "fingerprint-source"
_ORDER = [phase.replace("_", "-") for phase in PHASES]


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
    walk.group(spec.root.dag, store)
    return walk.rows


@dataclass
class _Walk:
    """Goes through the pipeline as kfp.local does, looking into its cache in the place of running."""

    spec: pipeline_spec_pb2.PipelineSpec
    cache: LocalCache
    values: Mapping[str, Any]
    rows: list[Planned] = field(default_factory=list)

    def group(self, dag: Any, store: io.IOStore, detail: str = "", ready: bool = True) -> bool:
        """All tasks of a group; `ready`: its inputs are known. Whether all tasks' outputs are known."""
        done: set[str] = set()
        for name in sorted(dag.tasks, key=self._position):
            task = dag.tasks[name]
            known = ready and set(task.dependent_tasks) <= done
            if task.WhichOneof("iterator"):
                outputs = self._loop(name, task, store, known)
            else:
                outputs = self._step(name, task, store, detail, known)
            if outputs is not None:
                done.add(name)
                for key, value in outputs.items():
                    store.put_task_output(name, key, value)
        return len(done) == len(dag.tasks)

    def _step(self, name: str, task: Any, store: io.IOStore, detail: str, known: bool) -> dict[str, Any] | None:
        if name == _ALWAYS:
            self.rows.append(Planned(name, detail, "run, always"))
            return fingerprint(FingerprintConfig.from_mapping(of_phase("fingerprint_source", self.values)))._asdict()
        outputs = self._cached(task, store) if known else None
        self.rows.append(Planned(name, detail, "run" if outputs is None else "cached"))
        return outputs

    def _loop(self, name: str, task: Any, store: io.IOStore, known: bool) -> dict[str, Any] | None:
        """A loop over one of the pipeline's parameters; its outputs are lists."""
        items = store.get_parent_input(task.parameter_iterator.items.input_parameter.split("--")[-1])
        component = self.spec.components[task.component_ref.name]
        found: list[dict[str, Any]] = []
        for index, item in enumerate(items):
            branch = f"{name}-iteration-{index}"
            iteration = task_spec_utils.create_parameter_loop_iteration_task_spec(task, item, name)
            inner = io.IOStore(parent=store)
            if known:
                arguments = task_spec_utils.build_nested_dag_arguments(branch, iteration, component, store)
                for key, value in arguments.items():
                    inner.put_parent_input(key, value)
            if self.group(component.dag, inner, str(item), known):
                found.append(OrchestratorUtils.get_dag_outputs(component.dag.outputs, inner))
        if len(found) < len(items):
            return None
        return {key: [outputs[key] for outputs in found] for key in component.dag.outputs.artifacts}

    def _cached(self, task: Any, store: io.IOStore) -> dict[str, Any] | None:
        """The task's outputs where kfp.local would take them from its cache; the key is made as kfp.local makes it."""
        component = task.component_ref.name
        executor = self.spec.deployment_spec["executors"][self.spec.components[component].executor_label]
        container = struct_to_executor_spec(executor).container
        key = self.cache.compute_key(
            component_name=component,
            image=container.image,
            full_command=[*container.command, *container.args],
            arguments=OrchestratorUtils.make_task_arguments(task.inputs, store),
            env_vars={variable.name: variable.value for variable in container.env},
        )
        outputs: dict[str, Any] | None = self.cache.get(key)
        return outputs

    def _position(self, name: str) -> int:
        """Of a step its phase's; of a group that of its first step."""
        if name in _ORDER:
            return _ORDER.index(name)
        return min(self._position(inner) for inner in self.spec.components[f"comp-{name}"].dag.tasks)
