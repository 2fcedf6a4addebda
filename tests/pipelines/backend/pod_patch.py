"""The patch of a step's pod that its driver hands to Argo.

It has the launcher's command, the step's command, and the Kubernetes settings.

Argo keeps it in the status of five nodes, so that it decides the size of the Workflow. Sources are
files of Kubeflow Pipelines 2.17.0 below backend/src/v2/driver. Values that only a run knows have
the length of those recorded on a real back end: KFP's own object store, ids of 36 characters.
"""

import json
import uuid

from tests.pipelines.backend.argo import go_json
from tests.pipelines.backend.driver import Artifact, Execution
from tests.pipelines.backend.specs import Compiled, Json

_RUN = "f96e1262-6984-4534-88e9-16135b6364be"
_ROOT = "minio://mlpipeline/v2/artifacts"
_STORE_SESSION = {
    "Provider": "minio",
    "Params": {
        "accessKeyKey": "accesskey",
        "disableSSL": "true",
        "endpoint": "seaweedfs.kubeflow.svc.cluster.local:9000",
        "forcePathStyle": "true",
        "fromEnv": "false",
        "maxRetries": "5",
        "region": "us-east-1",
        "secretKeyKey": "secretkey",
        "secretName": "mlpipeline-minio-artifact",
    },
}


def pod_patch(compiled: Compiled, execution: Execution) -> str:
    """Return the patch as JSON (driver.go:246, k8s.go:131)."""
    container = compiled.container_of(execution.task)
    settings = compiled.kubernetes_of(execution.task)
    mounts = settings.get("emptyDirMounts", [])
    config_maps = settings.get("configMapAsVolume", [])
    main = {
        "name": "main",
        "image": container["image"],
        "command": _launcher(compiled, execution),
        "args": [*container.get("command", []), *container.get("args", [])],
        "env": [*container.get("env", []), *_references(settings)],
        "resources": _resources(container.get("resources", {})),
        "volumeMounts": [
            {"name": mount["volumeName"], "mountPath": mount["mountPath"]} for mount in mounts
        ]
        + [
            {"name": mount["configMapName"], "mountPath": mount["mountPath"]}
            for mount in config_maps
        ],
        "imagePullPolicy": settings.get("imagePullPolicy", ""),
        "securityContext": {
            **settings.get("securityContext", {}),
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "volumes": [
            {
                "name": mount["volumeName"],
                "emptyDir": {key: mount[key] for key in ("medium", "sizeLimit") if key in mount},
            }
            for mount in mounts
        ]
        + [
            {
                "name": mount["configMapName"],
                "configMap": {"name": mount["configMapName"], "optional": mount["optional"]},
            }
            for mount in config_maps
        ],
        "containers": [main],
        "nodeSelector": settings.get("nodeSelector", {}).get("labels", {}),
        "tolerations": settings.get("tolerations", []),
        "activeDeadlineSeconds": int(settings.get("activeDeadlineSeconds", 0)),
        "imagePullSecrets": settings.get("imagePullSecret", []),
    }
    return go_json(pod)


def executor_input(compiled: Compiled, execution: Execution) -> Json:
    """Inputs and outputs of a step as its launcher gets them (driver.go:741,
    metadata/converter.go:181).
    """
    declared = execution.component.get("outputDefinitions", {})
    folder = _folder(compiled, execution.name)
    outputs = {name: spec["artifactType"] for name, spec in declared.get("artifacts", {}).items()}
    outputs["executor-logs"] = {"schemaTitle": "system.Artifact"}
    return {
        "inputs": {
            "parameterValues": execution.inputs.parameters,
            "artifacts": {
                name: {"artifacts": [_input_artifact(compiled, artifact)]}
                for name, artifact in execution.inputs.artifacts.items()
            },
        },
        "outputs": {
            "parameters": {
                name: {"outputFile": f"/tmp/kfp/outputs/{name}"}
                for name in declared.get("parameters", {})
            },
            "artifacts": {
                name: {"artifacts": [{"name": name, "type": kind, "uri": f"{folder}/{name}"}]}
                for name, kind in outputs.items()
            },
            "outputFile": f"{folder.replace('://', '/')}/output_metadata.json",
        },
    }


def _input_artifact(compiled: Compiled, artifact: Artifact) -> Json:
    return {
        "name": str(artifact.number),
        "type": {"instanceSchema": ""},
        "uri": f"{_folder(compiled, artifact.producer)}/{artifact.name}",
        "metadata": {
            "display_name": artifact.name,
            "store_session_info": json.dumps(_STORE_SESSION),
        },
    }


def _folder(compiled: Compiled, step: str) -> str:
    """Where a step's outputs lie (driver.go:775); its id is another one for every step."""
    return f"{_ROOT}/{compiled.name}/{_RUN}/{step}/{uuid.uuid5(uuid.NAMESPACE_URL, step)}"


def _launcher(compiled: Compiled, execution: Execution) -> list[str]:
    """driver.go:320-357"""
    options = {
        "pipeline_name": compiled.name,
        "run_id": _RUN,
        "execution_id": "1000",
        "executor_input": _protojson(executor_input(compiled, execution)),
        "component_spec": _protojson(execution.component),
        "pod_name": "$(KFP_POD_NAME)",
        "pod_uid": "$(KFP_POD_UID)",
        "ml_pipeline_server_address": "ml-pipeline.kubeflow.svc.cluster.local",
        "ml_pipeline_server_port": "8887",
        "mlmd_server_address": "metadata-grpc-service.kubeflow.svc.cluster.local",
        "mlmd_server_port": "8080",
        "publish_logs": "true",
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    return ["/kfp-launcher/launch", *flags, "--publish_logs", "true", "--"]


def _protojson(message: Json) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def _references(settings: Json) -> list[Json]:
    """k8s.go:347-393, 443-489"""
    found = []
    for secret in settings.get("secretAsEnv", []):
        for key in secret["keyToEnv"]:
            reference = {"name": secret["secretName"], "key": key["secretKey"], "optional": True}
            found.append({"name": key["envVar"], "valueFrom": {"secretKeyRef": reference}})
    for config_map in settings.get("configMapAsEnv", []):
        for key in config_map["keyToEnv"]:
            reference = {
                "name": config_map["configMapName"],
                "key": key["configMapKey"],
                "optional": True,
            }
            found.append({"name": key["envVar"], "valueFrom": {"configMapKeyRef": reference}})
    return found


def _resources(resources: Json) -> Json:
    """driver.go:358-447: the accelerator is a limit only."""
    limits = {
        "cpu": resources.get("resourceCpuLimit"),
        "memory": resources.get("resourceMemoryLimit"),
    }
    requests = {
        "cpu": resources.get("resourceCpuRequest"),
        "memory": resources.get("resourceMemoryRequest"),
    }
    accelerator = resources.get("accelerator", {})
    if accelerator:
        limits[accelerator["resourceType"]] = accelerator["resourceCount"]
    return {
        kind: {name: amount for name, amount in amounts.items() if amount}
        for kind, amounts in (("limits", limits), ("requests", requests))
    }
