"""How does the very same pipeline run on a laptop, and what would a run do?

`kfp.local` executes the compiled components as subprocesses, in order, with the same cache semantics as a cluster:
steps whose image (a digest of the source), inputs and parameters are unchanged are not run again.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import io
from kfp.local.cache import LocalCache
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.local.utils import struct_to_executor_spec
from kfp.pipeline_spec import pipeline_spec_pb2

from components.fingerprint_source.config import FingerprintConfig
from components.fingerprint_source.step import run as fingerprint
from components.shared.errors import PermanentError, StreetVisionError, TransientError
from components.shared.training.resumable import PLACE_VARIABLE
from pipelines.console import readable_log
from pipelines.parameters import PHASES, of_phase
from pipelines.resources import PROFILES
from pipelines.stage1 import stage1

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class LocalRun:
    """Where a finished run left its outputs."""

    bundle: Path
    evaluation: Path
    report: Path


def run_local(values: Mapping[str, Any], output: Path) -> LocalRun:
    """Run the pipeline with `values` below `output`; a failed step's own error is raised again."""
    output.mkdir(parents=True, exist_ok=True)
    output = output.resolve()
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(output),
        enable_caching=True,
        cache_root=str(_cache_root(output)),
    )
    before = set(output.glob("*/*/status.json"))
    try:
        with _environment(output), readable_log():
            outputs = stage1(PROFILES["local"])(**values).outputs
    except RuntimeError as error:
        raise _step_error(set(output.glob("*/*/status.json")) - before, error) from error
    report = Path(outputs["report"].path)
    # KFP names the file after the output; a person's browser wants the suffix.
    page = report.with_name("report.html")
    shutil.copyfile(report, page)
    return LocalRun(bundle=Path(outputs["bundle"].path), evaluation=Path(outputs["evaluation"].path), report=page)


@contextlib.contextmanager
def _environment(output: Path) -> Iterator[None]:
    """What the steps' processes inherit; afterwards this process has what it had."""
    before = dict(os.environ)
    # The components' subprocesses start in a temporary file: they find our packages through the path.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    # Each run has directories of its own; a training that was interrupted is found again by the next run.
    os.environ.setdefault(PLACE_VARIABLE, str(output / ".checkpoints"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def plan(values: Mapping[str, Any], output: Path) -> list[tuple[str, str]]:
    """(step, "cached" | "run" | "run, always") in order of execution, without running anything but the fingerprint."""
    spec = stage1(PROFILES["local"]).pipeline_spec
    cache = LocalCache(str(_cache_root(output)))
    store = io.IOStore()
    arguments = OrchestratorUtils.join_user_inputs_and_defaults(dict(values), spec.root.input_definitions)
    for name, value in arguments.items():
        store.put_parent_input(name, value)
    rows = []
    done: set[str] = set()
    for name in (phase.replace("_", "-") for phase in PHASES):
        task = spec.root.dag.tasks[name]
        outputs = None
        if name == "fingerprint-source":
            config = FingerprintConfig.from_mapping(of_phase("fingerprint_source", values))
            outputs = fingerprint(config)._asdict()
        elif set(task.dependent_tasks) <= done:
            outputs = _cached(spec, task, store, cache)
        if outputs is not None:
            done.add(name)
            for key, value in outputs.items():
                store.put_task_output(name, key, value)
        state = "run, always" if name == "fingerprint-source" else "run" if outputs is None else "cached"
        rows.append((name, state))
    return rows


def _cached(
    spec: pipeline_spec_pb2.PipelineSpec, task: Any, store: io.IOStore, cache: LocalCache
) -> dict[str, Any] | None:
    """The task's outputs where kfp.local would take them from its cache; the key is made as kfp.local makes it."""
    component = task.component_ref.name
    executor = spec.deployment_spec["executors"][spec.components[component].executor_label]
    container = struct_to_executor_spec(executor).container
    key = cache.compute_key(
        component_name=component,
        image=container.image,
        full_command=[*container.command, *container.args],
        arguments=OrchestratorUtils.make_task_arguments(task.inputs, store),
        env_vars={variable.name: variable.value for variable in container.env},
    )
    outputs: dict[str, Any] | None = cache.get(key)
    return outputs


def _cache_root(output: Path) -> Path:
    return output.resolve() / ".cache"


def _step_error(status_files: set[Path], fallback: RuntimeError) -> StreetVisionError:
    for file in sorted(status_files):
        status = json.loads(file.read_text(encoding="utf-8"))
        if status["state"] == "failed":
            kind = PermanentError if status["permanent"] else TransientError
            return kind(f"step {status['step']} failed: {status['message']}")
    return TransientError(f"{fallback} The step's own message is in the log above.")
