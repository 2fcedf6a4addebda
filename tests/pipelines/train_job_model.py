"""What Kubeflow Trainer accepts of a TrainJob and makes of it, as far as the pipeline uses it.

Our own model, written from the documented fields of trainer.kubeflow.org/v1alpha1 and checked by
eye against Kubeflow Trainer 2.3.0: pkg/apis/trainer/v1alpha1/trainjob_types.go (fields, limits),
pkg/runtime/core/trainingruntime.go (merging), pkg/runtime/framework/plugins/torch/torch.go and
jobset/{jobset,builder}.go (variables, validation). It stands for the CRD, the webhook and the
controller; none of them was asked. Releases before 2.2 name the patches otherwise.
"""

import copy
import re
from typing import Any

Json = dict[str, Any]
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 1}
TEXTS = {"type": "object", "additionalProperties": TEXT}
ANYTHING = {"type": "array", "items": {"type": "object"}}  # Kubernetes' own, checked in the pod


def _object(required: tuple[str, ...] = (), **properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_CONTAINER = _object(
    ("name",), name=TEXT, volumeMounts=ANYTHING, securityContext={"type": "object"}
)
_POD = _object(
    volumes=ANYTHING,
    containers={"type": "array", "items": _CONTAINER},
    imagePullSecrets=ANYTHING,
    nodeSelector=TEXTS,
    tolerations=ANYTHING,
)
_POD_TEMPLATE = _object(metadata=_object(labels=TEXTS, annotations=TEXTS), spec=_POD)
_REPLICATED = _object(("name",), name=TEXT, template=_object(spec=_object(template=_POD_TEMPLATE)))
_PATCH = _object(
    ("manager",),
    manager={"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9._-]+$"},
    trainingRuntimeSpec=_object(
        template=_object(spec=_object(replicatedJobs={"type": "array", "items": _REPLICATED}))
    ),
)
SCHEMA = _object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "trainer.kubeflow.org/v1alpha1"},
    kind={"const": "TrainJob"},
    metadata=_object(
        ("name",),
        name={"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
        labels=TEXTS,
        ownerReferences=ANYTHING,
    ),
    spec=_object(
        ("runtimeRef",),
        runtimeRef=_object(("name",), name=TEXT, apiGroup=TEXT, kind=TEXT),
        activeDeadlineSeconds=COUNT,
        trainer=_object(
            image={"type": "string", "maxLength": 500},
            command={"type": "array", "items": TEXT, "maxItems": 128},
            env={"type": "array", "items": {"type": "object"}, "maxItems": 128},
            numNodes=COUNT,
            resourcesPerNode=_object(requests=TEXTS, limits=TEXTS),
        ),
        runtimePatches={"type": "array", "items": _PATCH, "maxItems": 16},
    ),
)


def pod_of(job: Json, runtime: Json, node: int) -> Json:
    """The pod that the controllers make for a node, as a Pod object."""
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    (replicated,) = copy.deepcopy(runtime["spec"]["template"]["spec"]["replicatedJobs"])
    assert replicated["template"]["metadata"]["labels"] == {
        "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"
    }
    template = replicated["template"]["spec"]["template"]
    for patch in job["spec"]["runtimePatches"]:
        for changed in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            assert changed["name"] == replicated["name"], "a job that the runtime does not have"
            _merge(template, changed["template"]["spec"]["template"])

    trainer, name = job["spec"]["trainer"], job["metadata"]["name"]
    (container,) = template["spec"]["containers"]
    assert container["name"] == "node"
    torch = {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": "auto",
        "PET_NODE_RANK": str(node),
        "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
        "PET_MASTER_PORT": "29500",
    }
    assert not torch.keys() & {variable["name"] for variable in trainer["env"]}, "reserved"
    environment = [*trainer["env"], *({"name": key, "value": torch[key]} for key in torch)]
    container |= {
        "image": trainer["image"],
        "command": trainer["command"],
        "resources": trainer["resourcesPerNode"],
        "env": environment,
    }
    made = {"name": f"{name}-node-0-{node}-abcde", "labels": template["metadata"]["labels"]}
    assert all(re.fullmatch(r"[\w.-]{0,63}", value) for value in made["labels"].values())
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]}


def _merge(target: Json, patch: Json) -> None:
    """A strategic merge, as far as these fields need one: lists of named items by name."""
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        elif isinstance(value, list) and all("name" in item for item in value):
            known = {item["name"]: item for item in target.setdefault(key, [])}
            for item in value:
                if item["name"] in known:
                    _merge(known[item["name"]], item)
                else:
                    target[key].append(copy.deepcopy(item))
        else:
            target[key] = value
