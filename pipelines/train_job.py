"""A training on several nodes: its step, and the TrainJob of Kubeflow Trainer that the step makes.

All that the profile says of the nodes is compiled into one variable of the step, as a TrainJob
without name, owner and command; no cache key contains it. The step completes and creates it
(`components.shared.training.session.nodes`). What is the same for every training (no restarts, no
rights, no privileges) is in the TrainingRuntime of manifests/components/multi-node.

Plain objects, not the SDK of Kubeflow: that one starts a Python function with settings of its own,
and has no owner reference and no node's volumes.
"""

import json
from typing import Any

from kfp import dsl, kubernetes

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.training.session.nodes import NODE
from pipelines import resources
from pipelines.parameters import Variant
from pipelines.resources import CA_FOLDER, GPU, QUEUE_LABEL, STORE_CA, STORE_CONFIG, Profile
from pipelines.sources import phase_image

__all__ = ["API_VERSION", "RUNTIME", "shown_train_jobs", "train_job", "training"]

API_VERSION = "trainer.kubeflow.org/v1alpha1"
RUNTIME = "streetvision"  # TrainingRuntime of manifests/components/multi-node
_NODE = "node"  # the name that Kubeflow Trainer gives the replicated job and its container
_NODE_LABEL = {"streetvision/training-node": "true"}  # by which the network policy finds the nodes
# Patches are told apart by who makes them; the form is that of a label's name.
_MANAGER = "streetvision/profile"
_SCRATCH, _SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108 - mounts


def training(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Set a step that trains: on its own node, or on several where the profile says so."""
    if profile.training.n_nodes == 1:
        return resources.training(task, profile)

    job = train_job(profile, step=task.name, image=task.container_spec.image)
    text = json.dumps(job, sort_keys=True, separators=(",", ":"))
    task.set_env_variable(Variable.TRAIN_JOB, text)
    kubernetes.use_field_path_as_env(task, Variable.POD_NAME, "metadata.name")
    kubernetes.use_field_path_as_env(task, Variable.POD_UID, "metadata.uid")

    return resources.starter(task, profile)


def train_job(profile: Profile, *, step: str, image: str) -> dict[str, Any]:
    """Return the TrainJob of a step, to which the step adds name, owner and command."""
    wanted = profile.training
    labels = resources.pod_labels(step, "training")
    queue = {QUEUE_LABEL: profile.queue} if profile.queue else {}
    gpus = {GPU: str(wanted.gpus)} if wanted.gpus else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": {"labels": labels | queue},
        "spec": {
            "runtimeRef": {
                "apiGroup": API_VERSION.partition("/")[0],
                "kind": "TrainingRuntime",
                "name": RUNTIME,
            },
            "activeDeadlineSeconds": wanted.timeout_seconds,
            "trainer": {
                "image": image,
                "numNodes": wanted.n_nodes,
                "resourcesPerNode": {
                    "requests": {"cpu": wanted.cpu_request, "memory": wanted.memory_request} | gpus,
                    "limits": {"cpu": wanted.cpu_limit, "memory": wanted.memory_limit} | gpus,
                },
                "env": _environment(profile),
            },
            "runtimePatches": [
                {
                    "manager": _MANAGER,
                    "trainingRuntimeSpec": {
                        "template": {
                            "spec": {
                                "replicatedJobs": [
                                    {
                                        "name": _NODE,
                                        "template": {
                                            "spec": {
                                                "template": {
                                                    "metadata": {"labels": labels | _NODE_LABEL},
                                                    "spec": _pod(profile),
                                                }
                                            }
                                        },
                                    }
                                ]
                            }
                        }
                    },
                }
            ],
        },
    }


def shown_train_jobs(profile: Profile, variant: Variant) -> list[dict[str, Any]]:
    """Return the TrainJobs of a pipeline's trainings, each with the name of its step.

    A step gives them names of their own, the pod that owns them, and its module and start as
    further arguments. Raises ConfigError where the profile has one node.
    """
    if profile.training.n_nodes == 1:
        raise ConfigError(
            f"profile {profile.name} trains on one node, without a TrainJob; n_nodes above 1 in"
            " its training section makes them"
        )

    trained = [f"train-{mode}" for mode in variant.modes] or ["train-baseline"]
    phases = dict.fromkeys(trained, "train_baseline")
    if variant.pretrain != "none":
        phases["pretrain-explora"] = "pretrain_explora"

    jobs = []
    for step, phase in phases.items():
        job = train_job(profile, step=step, image=phase_image(phase, profile.registry))
        job["metadata"]["name"] = f"streetvision-{step}"
        job["spec"]["trainer"]["command"] = ["python", "-m", NODE]
        jobs.append(job)
    return jobs


def _pod(profile: Profile) -> dict[str, Any]:
    """The fields of the pods that the profile decides."""
    wanted = profile.training
    scratch = {"name": "scratch", "emptyDir": {"sizeLimit": wanted.scratch}}
    shared = {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": wanted.shared_memory}}
    authority = {"name": "store-ca", "configMap": {"name": STORE_CA, "optional": True}}
    pod: dict[str, Any] = {
        "volumes": [scratch, shared, authority],
        "containers": [
            {
                "name": _NODE,
                "volumeMounts": [
                    {"name": "scratch", "mountPath": _SCRATCH},
                    {"name": "dshm", "mountPath": _SHARED_MEMORY},
                    {"name": "store-ca", "mountPath": CA_FOLDER},
                ],
            }
        ],
    }
    if wanted.node_labels:
        pod["nodeSelector"] = dict(wanted.node_labels)
    if wanted.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in wanted.tolerations]
    if profile.secrets.image_pull:
        pod["imagePullSecrets"] = [{"name": name} for name in profile.secrets.image_pull]

    return pod


def _environment(profile: Profile) -> list[dict[str, Any]]:
    """The object store as the role of checkpoints reaches it, by reference, and NCCL's settings."""
    secrets = profile.secrets
    settings = [
        {"name": str(name), "valueFrom": {"configMapKeyRef": _reference(STORE_CONFIG, name)}}
        for name in (*resources.STORE_VARIABLES, Variable.S3_CA_FILE)
    ]
    keys = {
        Variable.S3_ACCESS_KEY: secrets.store_access_key,
        Variable.S3_SECRET_KEY: secrets.store_secret_key,
    }
    credentials = [
        {
            "name": str(name),
            "valueFrom": {"secretKeyRef": _reference(secrets.of("checkpoints"), key)},
        }
        for name, key in keys.items()
    ]
    nccl = [{"name": name, "value": value} for name, value in profile.training.nccl.items()]
    return settings + credentials + nccl


def _reference(name: str, key: str) -> dict[str, Any]:
    return {"name": name, "key": str(key), "optional": True}
