"""What does each step run on: GPUs, nodes, memory, disk, time, retries, user? The only place for such decisions."""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_channel import PipelineChannel
from kubernetes.utils import parse_quantity

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class TrainingResources(Config):
    """What of training's resources can be chosen when a run is started. As text: KFP's driver reads no numbers here."""

    n_gpus: str = option("2", "GPUs of the training step, all on one node.")
    gpu_nodes: dict[str, str] = option(
        {"nvidia.com/gpu.product": "NVIDIA-RTX-A6000"}, "Labels of the nodes that may train (GPU feature discovery)."
    )
    train_cpu: str = option("16", "CPUs of the training step, request and limit.")
    train_memory: str = option("96Gi", "Memory of the training step, request and limit.")

    def check(self) -> list[str]:
        """Quantities must be Kubernetes', GPUs whole."""
        problems = [] if self.n_gpus.isdecimal() else [f"n_gpus={self.n_gpus!r} must be a whole number"]
        for name in ("train_cpu", "train_memory"):
            try:
                parse_quantity(getattr(self, name))
            except ValueError:
                problems.append(f"{name}={getattr(self, name)!r} must be a quantity of Kubernetes, such as 16 or 96Gi")
        return problems


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Resources of a run. `training` may be changed when a run is started; memory and storage in Kubernetes units,
    times in seconds.

    queue: Kueue's LocalQueue in which training waits, "" without Kueue. on_cluster: whether Kubernetes runs the steps.
    """

    training: TrainingResources
    train_scratch: str = "100Gi"
    shared_memory: str = "16Gi"
    train_timeout_seconds: int = 24 * 3600
    n_retries: int = 3
    queue: str = ""
    on_cluster: bool = True

    @property
    def n_gpus(self) -> int:
        """GPUs of training where nothing else is asked for; 0: the profile has none."""
        return int(self.training.n_gpus)


PROFILES = {
    "a6000x2": Profile(training=TrainingResources()),
    "a6000x1": Profile(training=TrainingResources(n_gpus="1", train_cpu="8", train_memory="48Gi"), shared_memory="8Gi"),
    "cpu": Profile(training=TrainingResources(n_gpus="0", train_cpu="8", train_memory="32Gi"), shared_memory="8Gi"),
    # On a laptop an error should be seen at once, not after three retries.
    "local": Profile(training=TrainingResources(n_gpus="0"), n_retries=0, on_cluster=False),
}
_LIGHT_TIMEOUT_SECONDS = 2 * 3600
_LIGHT_SCRATCH = "20Gi"
_USER = 10001  # that of images/Dockerfile
STORE_SECRET = "streetvision-s3"  # noqa: S105 - the name of manifests/overlays' secret, not a secret
CHECKPOINT_STORE = "STREETVISION_CHECKPOINT_STORE"  # components/shared/training/mirror.py, whose import is slow
STORE_VARIABLES = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "SECURE", "REGION")


def runtime_parameters(profile: Profile) -> list[inspect.Parameter]:
    """Pipeline parameters for the resources that a run may choose, with the profile's defaults; none off a cluster."""
    names = ["train_cpu", "train_memory", *(["n_gpus", "gpu_nodes"] if profile.n_gpus else [])]
    kinds = {"gpu_nodes": dict}
    defaults = profile.training.to_json()
    return [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=defaults[name], annotation=kinds.get(name, str)
        )
        for name in (names if profile.on_cluster else [])
    ]


def light(task: dsl.PipelineTask, profile: Profile, *, memory: str = "8Gi") -> dsl.PipelineTask:
    """A step on CPU: a small request, scratch space, a timeout, retries."""
    task.set_cpu_request("2").set_cpu_limit("4").set_memory_request("2Gi").set_memory_limit(memory)
    kubernetes.set_timeout(task, _LIGHT_TIMEOUT_SECONDS)
    return _any_step(task, profile, scratch=_LIGHT_SCRATCH, cost="light")


def training(task: dsl.PipelineTask, profile: Profile, chosen: Mapping[str, Any]) -> dsl.PipelineTask:
    """A torchrun step that trains: its checkpoints outlive the pod where the store's secret says where to."""
    return with_store(torchrun(task, profile, chosen), CHECKPOINT_STORE)


def torchrun(task: dsl.PipelineTask, profile: Profile, chosen: Mapping[str, Any]) -> dsl.PipelineTask:
    """A torchrun step: GPUs on the right nodes, memory-backed /dev/shm for NCCL and data loading, timeout, retries.

    `chosen` has the pipeline's parameters of `runtime_parameters`; what it lacks is the profile's.
    """
    wanted = {**dataclasses.asdict(profile.training), **chosen}
    # KFP hands a group, such as a loop, only the parameters that it knows its tasks to use, and resources do not count.
    task.register_pipeline_channels([value for value in chosen.values() if isinstance(value, PipelineChannel)])
    task.set_cpu_request(wanted["train_cpu"]).set_cpu_limit(wanted["train_cpu"])
    task.set_memory_request(wanted["train_memory"]).set_memory_limit(wanted["train_memory"])
    if profile.n_gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(wanted["n_gpus"])
        kubernetes.add_node_selector_json(task, wanted["gpu_nodes"])
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    _empty_dir(task, "dshm", "/dev/shm", profile.shared_memory, medium="Memory")  # noqa: S108
    kubernetes.set_timeout(task, profile.train_timeout_seconds)
    if profile.queue:
        kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", profile.queue)
    return _any_step(task, profile, scratch=profile.train_scratch, cost="training")


def with_store(task: dsl.PipelineTask, *further: str) -> dsl.PipelineTask:
    """Give a step the object store's address and credentials; a cluster without the secret runs it without.

    `further` are other keys of the secret that become variables of the same name.
    """
    names = {name: name for name in (*(f"STREETVISION_S3_{name}" for name in STORE_VARIABLES), *further)}
    kubernetes.use_secret_as_env(task, secret_name=STORE_SECRET, secret_key_to_env=names, optional=True)
    return task


def _any_step(task: dsl.PipelineTask, profile: Profile, *, scratch: str, cost: str) -> dsl.PipelineTask:
    # Labels by which a cluster's bill is split: whose pod, which step, light or on the nodes for training.
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "streetvision")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", task.name)
    kubernetes.add_pod_label(task, "streetvision/cost", cost)
    kubernetes.set_security_context(task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True)
    _empty_dir(task, "scratch", "/tmp", scratch)  # noqa: S108 - the images keep all scratch there
    if profile.n_retries:
        task.set_retry(profile.n_retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    return task


def _empty_dir(task: dsl.PipelineTask, name: str, path: str, size: str, *, medium: str | None = None) -> None:
    kubernetes.empty_dir_mount(task, volume_name=name, mount_path=path, medium=medium, size_limit=size)
