"""Which steps of a run come from the cache: keys as KFP's driver makes them, kept between runs.

Sources are files of Kubeflow Pipelines 2.17.0 below backend/src/v2.
"""

import hashlib
from collections.abc import Mapping
from itertools import count

from tests.pipelines.backend.argo import go_json
from tests.pipelines.backend.driver import Artifact, Execution, Outputs, OutputsOf, walk
from tests.pipelines.backend.specs import Compiled, Json

_PER_RUN = ("{{$.pipeline_job_", "{{$.pipeline_task_uuid")
_LOGS = {"name": "executor-logs", "type": {"schemaTitle": "system.Artifact"}}


def no_outputs(step: str, parameters: Mapping[str, Json]) -> Mapping[str, Json]:
    """For pipelines without output parameters."""
    return {}


def cache_key(compiled: Compiled, execution: Execution, run: int = 0) -> str:
    """The fingerprint of a step's execution (cacheutils/cache.go:151-229, driver/cache.go:83).

    Not in it: the task's name, resources, retries, pod labels and other Kubernetes settings, except
    claims of volumes.
    """
    container = compiled.container_of(execution.task)
    declared = execution.component.get("outputDefinitions", {})
    mounts = compiled.kubernetes_of(execution.task).get("pvcMount", [])
    key = {
        "containerSpec": {
            "image": container["image"],
            "cmdArgs": [*container.get("command", []), *container.get("args", [])],
            "pvcNames": sorted({go_json(mount) for mount in mounts}),
        },
        "inputArtifactNames": {
            key: [str(a.number)] for key, a in execution.inputs.artifacts.items()
        },
        "inputParameterValues": {
            # driver/resolve.go:435-449: such a value is another one in every run.
            key: (
                f"{value} of run {run}"
                if isinstance(value, str) and value.startswith(_PER_RUN)
                else value
            )
            for key, value in execution.inputs.parameters.items()
        },
        # Without its URI (cacheutils/cache.go:205); the log is one of them by default
        # (driver/driver.go:755).
        "outputArtifactsSpec": (
            {
                key: {"name": key, "type": spec["artifactType"], "metadata": spec.get("metadata")}
                for key, spec in declared.get("artifacts", {}).items()
            }
            | {"executor-logs": _LOGS}
        ),
        "outputParametersSpec": {
            key: spec["parameterType"] for key, spec in declared.get("parameters", {}).items()
        },
    }
    return hashlib.sha256(go_json(key).encode()).hexdigest()


class Simulator:
    """A back end that remembers what ran.

    Artifacts get new ids where a step runs and keep them where it is cached.
    """

    def __init__(self) -> None:
        self._cache: dict[tuple[str, str], Outputs] = {}
        self._numbers, self._runs = count(1), count(1)

    def run(
        self, compiled: Compiled, arguments: Mapping[str, Json], outputs_of: OutputsOf = no_outputs
    ) -> set[str]:
        """Names of the steps whose container ran.

        Raises driver.RefusedError where a driver of the real back end would fail.
        """
        ran: set[str] = set()
        number = next(self._runs)

        def step(execution: Execution) -> Outputs:
            enabled = execution.task.get("cachingOptions", {}).get("enableCache", False)
            # driver/cache.go:126: keys are those of one pipeline, by its name.
            key = (compiled.name, cache_key(compiled, execution, number))
            if enabled and key in self._cache:
                return self._cache[key]
            ran.add(execution.name)
            outputs = self._outputs(execution, outputs_of)
            if enabled:
                self._cache[key] = outputs
            return outputs

        walk(compiled, arguments, step)
        return ran

    def _outputs(self, execution: Execution, outputs_of: OutputsOf) -> Outputs:
        declared = execution.component.get("outputDefinitions", {})
        artifacts = {
            key: Artifact(next(self._numbers), execution.name, key)
            for key in declared.get("artifacts", {})
        }
        parameters = dict(outputs_of(execution.name, execution.inputs.parameters))
        if parameters.keys() != declared.get("parameters", {}).keys():
            raise ValueError(
                f"{execution.name}: outputs {sorted(parameters)} are not those of its component"
            )
        return Outputs(parameters, artifacts)
