"""Size of the Workflow object of a run, spec and node status, in bytes of JSON without compression.

Argo repeats a node's inputs in the status of every node: of a step's driver, of the group around
its pod, of the pod, and of the retry node that KFP's defaults put above each. Above 1 MiB it
compresses the status (argo: workflow/packer/packer.go:18), and `kubectl` shows nothing of the
nodes; etcd refuses objects of more than 1.5 MB.

Sources are files of Kubeflow Pipelines 2.17.0 and of Argo Workflows 4.0.5 (`argo:`).
"""

import re
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple

from tests.pipelines.backend.argo import STOCK, go_json, workflow
from tests.pipelines.backend.driver import Artifact, Execution, Outputs, OutputsOf, walk
from tests.pipelines.backend.pod_patch import pod_patch
from tests.pipelines.backend.specs import Compiled, Json

_TIME = "2026-11-27T01:23:55Z"
_PLACEHOLDER = re.compile(r"\{\{([^{}]+)\}\}")


class WorkflowSize(NamedTuple):
    """Bytes. arguments and templates are parts of spec.

    Compressed: the status as Argo would store it if too large.
    """

    arguments: int
    templates: int
    spec: int
    status: int
    n_nodes: int
    compressed: int

    @property
    def total(self) -> int:
        """The object without its metadata, when every step has run."""
        return self.spec + self.status


def workflow_size(
    compiled: Compiled, arguments: Mapping[str, Json], outputs_of: OutputsOf
) -> WorkflowSize:
    """Compute the size for a run with `arguments` in which every step runs once.

    An upper estimate of a run without lost pods: a step that comes from the cache or fails has
    fewer nodes.
    """
    spec = workflow(compiled, arguments, STOCK)["spec"]
    nodes = list(_Status(compiled, spec, _executions(compiled, arguments, outputs_of)).nodes())
    status = go_json({node["id"]: node for node in nodes})
    return WorkflowSize(
        arguments=len(go_json(spec["arguments"])),
        templates=len(go_json(spec["templates"])),
        spec=len(go_json(spec)),
        status=len(status),
        n_nodes=len(nodes),
        compressed=len(b64encode(zlib.compress(status.encode(), wbits=31))),
    )


def _executions(
    compiled: Compiled, arguments: Mapping[str, Json], outputs_of: OutputsOf
) -> dict[tuple[str, ...], Execution]:
    """Resolved inputs of all tasks, by their path in the graph."""
    numbers = count(100)

    def run(execution: Execution) -> Outputs:
        names = execution.component.get("outputDefinitions", {}).get("artifacts", {})
        artifacts = {name: Artifact(next(numbers), execution.name, name) for name in names}
        return Outputs(dict(outputs_of(execution.name, execution.inputs.parameters)), artifacts)

    return {(*found.path, found.name): found for found in walk(compiled, arguments, run)}


class _Status:
    """The nodes that Argo makes of a Workflow: two for every template it calls (a retry node and
    its first attempt).

    Every template is retried, by KFP's `templateDefaults`
    (manifests/kustomize/third-party/argo/base/ workflow-controller-configmap-patch.yaml); the
    inputs of a node are those of its template, defaults included (argo:
    workflow/controller/operator.go:2780), and the outputs of an attempt are copied to its retry
    node (:1009).
    """

    def __init__(
        self, compiled: Compiled, spec: Json, executions: Mapping[tuple[str, ...], Execution]
    ) -> None:
        self.compiled, self.executions = compiled, executions
        self.templates = {template["name"]: template for template in spec["templates"]}
        self.name = f"{compiled.name}-wwv6z"
        self.globals = {
            f"workflow.parameters.{p['name']}": p["value"] for p in spec["arguments"]["parameters"]
        }

    def nodes(self) -> Iterator[Json]:
        """All nodes of the run."""
        yield from self._call("entrypoint", {}, self.name, "", ())

    def _call(
        self,
        template: str,
        arguments: Mapping[str, str],
        node: str,
        boundary: str,
        path: tuple[str, ...],
    ) -> Iterator[Json]:
        called = self.templates[template]
        inputs = [
            self._input(parameter, arguments)
            for parameter in called["inputs"].get("parameters", [])
        ]
        outputs = self._outputs(called, path)
        attempt = f"{node}(0)"
        yield self._node(node, "Retry", template, boundary, inputs, outputs, [attempt])

        tasks = called.get("dag", {}).get("tasks", [])
        children = [f"{attempt}.{task['name']}" for task in tasks]
        yield self._node(
            attempt, "DAG" if tasks else "Pod", template, boundary, inputs, outputs, children
        )

        known = self.globals | {
            f"inputs.parameters.{entry['name']}": entry["value"] for entry in inputs
        }
        for task, child in zip(tasks, children, strict=True):
            inner = (*path, task["name"])
            yield from self._call(
                task["template"], self._arguments(task, known), child, attempt, inner
            )
            for output in self._outputs(self.templates[task["template"]], inner):
                known[f"tasks.{task['name']}.outputs.parameters.{output['name']}"] = output["value"]

    def _arguments(self, task: Json, known: Mapping[str, str]) -> dict[str, str]:
        parameters = task["arguments"].get("parameters", [])
        return {
            p["name"]: _PLACEHOLDER.sub(lambda m: known.get(m[1], m[0]), p["value"])
            for p in parameters
        }

    def _input(self, parameter: Json, arguments: Mapping[str, str]) -> Json:
        value = arguments.get(parameter["name"], parameter.get("default", ""))
        return {**parameter, "value": value}

    def _outputs(self, template: Json, path: tuple[str, ...]) -> list[Json]:
        """What a driver writes for Argo; `path` ends with the driver's name."""
        values = {
            "execution-id": "1000",
            "iteration-count": "0",
            "condition": "true",
            "cached-decision": "false",
        }
        if template["name"] == "system-container-driver":
            steps = tuple(part for part in path if part not in ("root", "executor"))
            task = (*steps[:-1], steps[-1].removesuffix("-driver"))
            values["pod-spec-patch"] = pod_patch(self.compiled, self.executions[task])
        declared = template["outputs"].get("parameters", [])
        return [{**parameter, "value": values[parameter["name"]]} for parameter in declared]

    def _node(
        self,
        name: str,
        kind: str,
        template: str,
        boundary: str,
        inputs: list[Json],
        outputs: list[Json],
        children: list[str],
    ) -> Json:
        """A node's status when it has ended (argo: pkg/apis/workflow/v1alpha1/workflow_types.go,
        NodeStatus).
        """
        node: Json = {
            "id": self._id(name),
            "name": name,
            "displayName": name.rpartition(".")[2],
            "type": kind,
            "templateName": template,
            "templateScope": f"local/{self.name}",
            "phase": "Succeeded",
            "boundaryID": self._id(boundary),
            "startedAt": _TIME,
            "finishedAt": _TIME,
            "progress": "1/1",
            "resourcesDuration": {"cpu": 1000, "memory": 1000},
            "children": [self._id(child) for child in children],
            "outboundNodes": [self._id(name)],
        }
        if kind == "Pod":
            node |= {
                "hostNodeName": "gpu-node-1.example",
                "nodeFlag": {"retried": True},
                "taskResultSynced": True,
            }
        if inputs:
            node["inputs"] = {"parameters": inputs}
        if kind == "Pod" or outputs:
            node["outputs"] = {
                "parameters": outputs,
                "artifacts": [self._log(name)],
                "exitCode": "0",
            }
        return node

    def _id(self, node: str) -> str:
        """argo: pkg/apis/workflow/v1alpha1/workflow_types.go, NodeID: the name's FNV-1a hash."""
        code = 0x811C9DC5
        for byte in node.encode():
            code = ((code ^ byte) * 0x01000193) & 0xFFFFFFFF
        return f"{self.name}-{code}"

    def _log(self, node: str) -> Json:
        """The container's log in Argo's archive, which KFP's settings switch on."""
        folder = f"private-artifacts/kubeflow/{self.name}/2026/11/27"
        return {"name": "main-logs", "s3": {"key": f"{folder}/{self._id(node)}/main.log"}}
