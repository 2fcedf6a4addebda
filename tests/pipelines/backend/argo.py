"""The Argo Workflow that KFP's API server makes of a compiled pipeline.

It follows KFP's argocompiler line by line.

Sources are files of Kubeflow Pipelines 2.17.0 below backend/src/v2/compiler. The result is compared
with the Workflows that KFP's own compiler test expects (`kfp_workflows/`), so that the model cannot
drift from what it stands for.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.pipelines.backend.specs import Compiled, Json, RefusedError

_POD_METADATA = {"pipelines.kubeflow.org/v2_component": "true"}
_SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}
_USER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **_SECCOMP}
_SECURITY = {**_USER_SECURITY, "runAsNonRoot": True}
_POD_ENVIRONMENT = [
    {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "KFP_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
]
# container.go:42-71
_SCRATCH = {
    "kfp-launcher": "/kfp-launcher",
    "gcs-scratch": "/gcs",
    "s3-scratch": "/s3",
    "minio-scratch": "/minio",
    "dot-local-scratch": "/.local",
    "dot-cache-scratch": "/.cache",
    "dot-config-scratch": "/.config",
}
_RETRY = (
    "retry-max-count",
    "retry-backoff-duration",
    "retry-backoff-factor",
    "retry-backoff-max-duration",
)


@dataclass(frozen=True)
class ApiServer:
    """Settings of the API server that show in a Workflow.

    The defaults are those of its compiler's test.

    options: arguments that its environment adds to every driver and launcher
    (container.go:235-240). annotations: those that it adds to every template afterwards
    (apiserver/template/v2_template.go:410).
    """

    driver_image: str = "ghcr.io/kubeflow/kfp-driver:latest"
    launcher_image: str = "ghcr.io/kubeflow/kfp-launcher:latest"
    options: tuple[str, ...] = ()
    annotations: Mapping[str, str] | None = None


# manifests/kustomize/base/pipeline/ml-pipeline-apiserver-deployment.yaml:114-220
STOCK = ApiServer(
    driver_image="ghcr.io/kubeflow/kfp-driver:2.17.0",
    launcher_image="ghcr.io/kubeflow/kfp-launcher:2.17.0",
    options=("--log_level", "1", "--publish_logs", "true"),
    annotations={"sidecar.istio.io/inject": "false"},
)


def go_json(value: Json) -> str:
    """`value` as Go's encoding/json writes it: sorted, compact, HTML escaped
    (argocompiler/proto.go:26).
    """
    text = json.dumps(
        _whole_numbers(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False
    )
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def workflow(
    compiled: Compiled, arguments: Mapping[str, Json] | None = None, server: ApiServer = STOCK
) -> Json:
    """The Workflow of a run with `arguments`, before Argo's controller sees it
    (argocompiler/argo.go:71).
    """
    return _Compiler(compiled, dict(arguments or {}), server).compile()


class _Compiler:
    """Visitor of all components, leaves first (visitor.go:57, 89)."""

    def __init__(self, compiled: Compiled, arguments: dict[str, Json], server: ApiServer) -> None:
        self.compiled, self.server = compiled, server
        # Copies, since a group's retry policy goes down to the tasks inside (visitor.go:163).
        self.components = json.loads(json.dumps(compiled.components))
        self.root = json.loads(json.dumps(compiled.root))
        self.arguments = self._with_defaults(arguments)
        self.parameters: dict[str, str] = {}
        self.templates: dict[str, Json] = {}
        self.visited: set[str] = set()

    def compile(self) -> Json:
        self._visit("root", self.root, None)
        pipeline = self.compiled.name.rpartition("/")[2]
        for template in self.templates.values():
            if self.server.annotations:
                template["metadata"].setdefault("annotations", {}).update(self.server.annotations)
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{pipeline}-"},
            "spec": {
                "arguments": {"parameters": _values(self.parameters)},
                "entrypoint": "entrypoint",
                "podMetadata": {"annotations": _POD_METADATA, "labels": _POD_METADATA},
                "securityContext": {"runAsNonRoot": True, **_SECCOMP},
                "serviceAccountName": "pipeline-runner",
                "templates": list(self.templates.values()),
            },
            "status": {"finishedAt": None, "startedAt": None},
        }

    def _with_defaults(self, arguments: dict[str, Json]) -> dict[str, Json]:
        """Arguments of the run with the pipeline's defaults, null where optional
        (argo.go:96-107).
        """
        for name, parameter in self.root.get("inputDefinitions", {}).get("parameters", {}).items():
            if name not in arguments and (
                "defaultValue" in parameter or parameter.get("isOptional")
            ):
                arguments[name] = parameter.get("defaultValue")
        return arguments

    def _visit(self, name: str, component: Json, task: Json | None) -> None:
        if name in self.visited:
            return
        self.visited.add(name)
        if "dag" not in component:
            self._container(name, component)
            return

        for key in sorted(component["dag"]["tasks"]):
            inner = component["dag"]["tasks"][key]
            if "retryPolicy" not in inner and task is not None and "retryPolicy" in task:
                inner["retryPolicy"] = task["retryPolicy"]
            reference = inner["componentRef"]["name"]
            self._visit(reference, self.components[reference], inner)
        self._dag(name, component)

    def _container(self, name: str, component: Json) -> None:
        """container.go:73, spec_patch.go:27: three arguments, each once for the same container
        (argo.go:400).
        """
        label = component["executorLabel"]
        if label in self.compiled.kubernetes:
            self.parameters[f"kubernetes-{name}"] = go_json(self.compiled.kubernetes[label])
        digest = self._digest(name)
        self.parameters.setdefault(f"components-{digest}", go_json(component))
        self.parameters.setdefault(
            f"implementations-{digest}", go_json(self.compiled.executors[label]["container"])
        )

    def _digest(self, component: str) -> str:
        """argo.go:437: of the container, so that tasks of one component share it.

        A group has its name.
        """
        label = self.components.get(component, {}).get("executorLabel")
        if label is None:
            return component
        container = go_json(self.compiled.executors[label]["container"])
        return hashlib.sha256(container.encode()).hexdigest()

    def _dag(self, name: str, component: Json) -> None:
        """dag.go:35"""
        tasks = component["dag"]["tasks"]
        for key, task in tasks.items():
            _refuse(key, task)
            _add_implicit_dependencies(task)
        self.parameters.setdefault(f"components-{name}", go_json(component))
        inner = [made for key in sorted(tasks) for made in self._task(key, tasks[key])]
        self.templates[name] = _dag_template(name, ["parent-dag-id"], inner)
        if name == "root":
            self._entrypoint()

    def _entrypoint(self) -> None:
        """dag.go:150-181"""
        config = {"parameterValues": self.arguments} if self.arguments else {}
        arguments = {"runtime-config": go_json(config), "driver-type": "ROOT_DAG"}
        driver = self._dag_driver("root-driver", "root", arguments)
        root = _dag_task("root", "root", _output("root-driver", "execution-id"), "")
        root["depends"] = "root-driver.Succeeded"
        self.templates["entrypoint"] = _dag_template("entrypoint", [], [driver, root])

    def _task(self, name: str, task: Json) -> list[Json]:
        """The driver and what it drives (dag.go:223)."""
        is_group = "dag" in self.components[task["componentRef"]["name"]]
        driver, driven = (
            self._group_task(name, task) if is_group else self._container_task(name, task)
        )
        producers = task.get("dependentTasks", [])
        if producers:
            driver["depends"] = " && ".join(f"{producer}.Succeeded" for producer in producers)
        driven["depends"] = f"{name}-driver.Succeeded"
        return [driver, driven]

    def _group_task(self, name: str, task: Json) -> tuple[Json, Json]:
        component = task["componentRef"]["name"]
        arguments = {
            "parent-dag-id": _input("parent-dag-id"),
            "task": go_json(task),
            "task-name": name,
        }
        driver = self._dag_driver(f"{name}-driver", component, arguments)
        execution, condition = (
            _output(f"{name}-driver", key) for key in ("execution-id", "condition")
        )
        return driver, _dag_task(name, component, execution, condition)

    def _container_task(self, name: str, task: Json) -> tuple[Json, Json]:
        """dag.go:288-336, container.go:152 and :310"""
        component = task["componentRef"]["name"]
        digest = self._digest(component)
        arguments = {
            "component": _parameter(f"components-{digest}"),
            "task": go_json(task),
            "container": _parameter(f"implementations-{digest}"),
            "task-name": name,
            "parent-dag-id": _input("parent-dag-id"),
        }
        if f"kubernetes-{component}" in self.parameters:
            arguments["kubernetes-config"] = _parameter(f"kubernetes-{component}")
        self._add_container_driver()
        driver = _call(f"{name}-driver", "system-container-driver", _values(arguments))

        metadata = self.compiled.kubernetes_of(task).get("podMetadata")
        parameters = [
            {"name": "pod-spec-patch", "value": _output(f"{name}-driver", "pod-spec-patch")},
            {
                "name": "cached-decision",
                "default": "false",
                "value": _output(f"{name}-driver", "cached-decision"),
            },
            *_values(_pod_metadata(metadata)),
            *_values(_retry_values(task.get("retryPolicy"))),
        ]
        return driver, _call(name, self._add_executor(task, metadata), parameters)

    def _add_container_driver(self) -> None:
        """container.go:186"""
        arguments = self._driver_arguments("CONTAINER", container=True)
        inputs = [
            {"name": name}
            for name in ("component", "task", "container", "task-name", "parent-dag-id")
        ]
        inputs += [
            {"name": "iteration-index", "default": "-1"},
            {"name": "kubernetes-config", "default": ""},
        ]
        outputs = [_output_file("pod-spec-patch", ""), _output_file("cached-decision", "false")]
        outputs[1]["default"] = "false"
        outputs.append(_output_file("condition", "true"))
        self._add_driver(
            "system-container-driver", inputs, outputs, arguments, {"env": _POD_ENVIRONMENT}
        )

    def _dag_driver(self, name: str, component: str, arguments: Mapping[str, str]) -> Json:
        """dag.go:505 and :565"""
        inputs: list[Json] = [{"name": "component"}]
        defaults = {
            "runtime-config": "",
            "task": "",
            "task-name": "",
            "parent-dag-id": "0",
            "iteration-index": "-1",
        }
        inputs += [
            {"name": key, "default": default}
            for key, default in (defaults | {"driver-type": "DAG"}).items()
        ]
        outputs = [
            _output_file("execution-id"),
            _output_file("iteration-count", "0"),
            _output_file("condition", "true"),
        ]
        options = self._driver_arguments(_input("driver-type"), container=False)
        self._add_driver("system-dag-driver", inputs, outputs, options, {})
        parameters = {"component": _parameter(f"components-{self._digest(component)}"), **arguments}
        return _call(name, "system-dag-driver", _values(parameters))

    def _driver_arguments(self, kind: str, *, container: bool) -> list[str]:
        inputs = [
            "component",
            "task",
            "task_name",
            "container" if container else "runtime_config",
            "iteration_index",
        ]
        if container:
            outputs = ["cached_decision", "pod_spec_patch", "condition"]
        else:
            outputs = ["execution_id", "iteration_count", "condition"]
        options = {
            "type": kind,
            "pipeline_name": self.compiled.name,
            "run_id": "{{workflow.uid}}",
            "run_name": "{{workflow.name}}",
            "run_display_name": "",
            "pipeline_job_create_time_utc": "{{workflow.creationTimestamp}}",
            "dag_execution_id": _input("parent-dag-id"),
            **{name: _input(name.replace("_", "-")) for name in inputs},
            **{
                f"{name}_path": f"{{{{outputs.parameters.{name.replace('_', '-')}.path}}}}"
                for name in outputs
            },
            **({"kubernetes_config": _input("kubernetes-config")} if container else {}),
            "http_proxy": "",
            "https_proxy": "",
            "no_proxy": "",
            "ml_pipeline_server_address": "ml-pipeline.kubeflow.svc.cluster.local",
            "ml_pipeline_server_port": "8887",
            "mlmd_server_address": "metadata-grpc-service.kubeflow.svc.cluster.local",
            "mlmd_server_port": "8080",
        }
        return [text for name, value in options.items() for text in (f"--{name}", value)] + list(
            self.server.options
        )

    def _add_driver(
        self,
        name: str,
        inputs: list[Json],
        outputs: list[Json],
        arguments: list[str],
        more: dict[str, Json],
    ) -> None:
        self.templates.setdefault(
            name,
            {
                "name": name,
                "inputs": {"parameters": inputs},
                "outputs": {"parameters": outputs},
                "metadata": {"annotations": {"pipelines.kubeflow.org/runtime-role": "driver"}},
                "securityContext": {"runAsNonRoot": True, **_SECCOMP},
                "container": {
                    "name": "",
                    "image": self.server.driver_image,
                    "command": ["driver"],
                    "args": arguments,
                    "resources": {
                        "limits": {"cpu": "500m", "memory": "512Mi"},
                        "requests": {"cpu": "100m", "memory": "64Mi"},
                    },
                    "securityContext": _SECURITY,
                    **more,
                },
            },
        )

    def _add_executor(self, task: Json, metadata: Json | None) -> str:
        """container.go:362: a group that skips its pod where the driver found a cached
        execution.
        """
        retries = "retryPolicy" in task
        prefix = "retry-" if retries else ""
        if metadata is not None:
            counts = [len(metadata.get(kind, {})) for kind in ("annotations", "labels")]
            prefix = f"metadata-{counts[0]}-{counts[1]}-{prefix}"
        name, pod = f"{prefix}system-container-executor", f"{prefix}system-container-impl"
        if name in self.templates:
            return name

        labels = list(_pod_metadata(metadata))
        retry = list(_RETRY) if retries else []
        executor = {
            "name": "executor",
            "template": pod,
            "when": _input("cached-decision") + " != true",
            "arguments": {
                "parameters": _values(
                    {key: _input(key) for key in ["pod-spec-patch", *labels, *retry]}
                )
            },
        }
        self.templates[name] = _dag_template(name, [], [executor])
        self.templates[name]["inputs"]["parameters"] = [
            {"name": "pod-spec-patch"},
            {"name": "cached-decision", "default": "false"},
            *({"name": label} for label in labels),
            *({"name": key, "default": "0"} for key in retry),
        ]
        self.templates[pod] = self._pod_template(pod, metadata, labels, retries)
        return name

    def _pod_template(
        self, name: str, metadata: Json | None, labels: list[str], retries: bool
    ) -> Json:
        """container.go:451-596"""
        mounts = [{"name": volume, "mountPath": path} for volume, path in _SCRATCH.items()]
        environment = [
            *_POD_ENVIRONMENT,
            *([{"name": "KFP_RETRY_INDEX", "value": "{{retries}}"}] if retries else []),
        ]
        own: Json = {"annotations": {"pipelines.kubeflow.org/runtime-role": "launcher"}}
        for kind in ("annotation", "label"):
            keys = [key for key in labels if key.startswith(f"pod-metadata-{kind}-key")]
            if metadata is not None and keys:
                pairs = {_input(key): _input(key.replace("-key", "-val")) for key in keys}
                own.setdefault(f"{kind}s", {}).update(pairs)
        template = {
            "name": name,
            "inputs": {"parameters": [{"name": key} for key in self._pod_inputs(labels, retries)]},
            "outputs": {},
            "metadata": own,
            "podSpecPatch": _input("pod-spec-patch"),
            "securityContext": _SECCOMP,
            "volumes": [{"name": volume, "emptyDir": {}} for volume in _SCRATCH],
            "initContainers": [
                {
                    "name": "kfp-launcher",
                    "image": self.server.launcher_image,
                    "command": ["launcher-v2"],
                    "args": ["--copy", "/kfp-launcher/launch", *self.server.options],
                    "volumeMounts": mounts[:1],
                    "resources": {
                        "limits": {"cpu": "500m", "memory": "256Mi"},
                        "requests": {"cpu": "100m"},
                    },
                    "securityContext": _SECURITY,
                }
            ],
            "container": {
                "name": "",
                "image": "gcr.io/ml-pipeline/should-be-overridden-during-runtime",
                "command": ["should-be-overridden-during-runtime"],
                "volumeMounts": mounts,
                "envFrom": [
                    {"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}
                ],
                "env": environment,
                "resources": {},
                "securityContext": _USER_SECURITY,
            },
        }
        if retries:
            count, duration, factor, longest = map(_input, _RETRY)
            backoff = {"duration": duration, "factor": factor, "maxDuration": longest}
            template["retryStrategy"] = {"limit": count, "backoff": backoff}
        return template

    def _pod_inputs(self, labels: list[str], retries: bool) -> list[str]:
        return ["pod-spec-patch", *labels, *(_RETRY if retries else ())]


def _refuse(name: str, task: Json) -> None:
    """What `rules` refuses in this pipeline is not modelled."""
    if task.get("triggerPolicy") or "parameterIterator" in task or "artifactIterator" in task:
        raise RefusedError(f"{name}: conditions, exit handlers and loops are not modelled")


def _add_implicit_dependencies(task: Json) -> None:
    """dag.go:659: a task waits for the producers of its inputs."""
    inputs = task.get("inputs", {})
    producers = [
        v["taskOutputParameter"]
        for v in inputs.get("parameters", {}).values()
        if "taskOutputParameter" in v
    ]
    producers += [
        v["taskOutputArtifact"]
        for v in inputs.get("artifacts", {}).values()
        if "taskOutputArtifact" in v
    ]
    for producer in producers:
        dependent = task.setdefault("dependentTasks", [])
        if producer["producerTask"] not in dependent:
            dependent.append(producer["producerTask"])


def _pod_metadata(metadata: Json | None) -> dict[str, str]:
    """container.go:689: parameters that carry annotations and labels, numbered where there are
    several.
    """
    parameters = {}
    for kind in ("annotation", "label"):
        entries = sorted((metadata or {}).get(f"{kind}s", {}).items())
        for number, (key, value) in enumerate(entries, 1):
            suffix = f"-{number}" if len(entries) > 1 else ""
            parameters[f"pod-metadata-{kind}-key{suffix}"] = key
            parameters[f"pod-metadata-{kind}-val{suffix}"] = value
    return parameters


def _retry_values(policy: Json | None) -> dict[str, str]:
    """container.go:614"""
    if policy is None:
        return {}
    values = [
        str(policy.get("maxRetryCount", 0)),
        policy.get("backoffDuration", "").rstrip("s"),
        f"{policy.get('backoffFactor', 0):g}",
        policy.get("backoffMaxDuration", "").rstrip("s"),
    ]
    return {name: value for name, value in zip(_RETRY, values, strict=True) if value}


def _dag_template(name: str, inputs: list[str], tasks: list[Json]) -> Json:
    parameters = {"parameters": [{"name": key} for key in inputs]} if inputs else {}
    return {
        "name": name,
        "inputs": parameters,
        "outputs": {},
        "metadata": {},
        "dag": {"tasks": tasks},
    }


def _dag_task(name: str, template: str, execution: str, condition: str) -> Json:
    """dag.go:199"""
    return _call(name, template, _values({"parent-dag-id": execution, "condition": condition}))


def _call(name: str, template: str, parameters: list[Json]) -> Json:
    return {"name": name, "template": template, "arguments": {"parameters": parameters}}


def _output_file(name: str, default: str | None = None) -> Json:
    source = {"path": f"/tmp/outputs/{name}"} | ({} if default is None else {"default": default})
    return {"name": name, "valueFrom": source}


def _values(values: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _input(name: str) -> str:
    return f"{{{{inputs.parameters.{name}}}}}"


def _output(task: str, name: str) -> str:
    return f"{{{{tasks.{task}.outputs.parameters.{name}}}}}"


def _parameter(name: str) -> str:
    return f"{{{{workflow.parameters.{name}}}}}"


def _whole_numbers(value: Any) -> Any:
    """JSON of a protobuf Struct knows no 2.0, only 2."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_numbers(item) for item in value]
    return value
