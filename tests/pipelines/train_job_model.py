"""What Kubeflow Trainer accepts of a TrainJob and makes of it, as far as the pipeline uses it.

Accepted is what the published schemas of its resources allow. What it makes of a TrainJob is our
own model, checked by eye against Kubeflow Trainer 2.3.0: pkg/runtime/core/trainingruntime.go
(merging), pkg/runtime/framework/plugins/torch/torch.go and jobset/{jobset,builder}.go (variables,
validation). It stands for the webhook and the controller, which were not asked. Releases before 2.2
name the patches otherwise.
"""

import copy
import re
from typing import Any

from tests.manifests import custom_resources

Json = dict[str, Any]


def problems(item: Json) -> list[str]:
    """Return what an API server with Kubeflow Trainer would say of one of its objects."""
    return custom_resources.problems(f"trainer-2.3.0-{item['kind'].lower()}", item)


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
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), "it is a JobSet's name too"
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
