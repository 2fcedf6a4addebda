"""What does each step run in and on: image, GPUs, nodes, memory, time, retries?

The only place for such decisions. Images are named by a digest of the sources that go into them, so that KFP's cache,
whose key has the image's name but not its content, reruns exactly the steps whose code changed.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from kfp import dsl, kubernetes

_ROOT = Path(__file__).resolve().parent.parent
_REGISTRY = os.environ.get("STREETVISION_REGISTRY", "streetvision")
# torch and transformers are only in the trainer image; what only it needs must not change the CPU image's name.
_TRAINER_ONLY = (
    "components/train_baseline",
    "components/train_gate",
    "components/shared/models",
    "components/shared/training",
)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Resources of a run. `n_gpus` 0 asks for none; memory and storage in Kubernetes units; times in seconds."""

    n_gpus: int
    gpu_product: str = "NVIDIA-RTX-A6000"  # label set by NVIDIA's GPU feature discovery
    train_cpu: str = "16"
    train_memory: str = "96Gi"
    shared_memory: str = "16Gi"
    train_timeout_seconds: int = 24 * 3600
    n_retries: int = 3


PROFILES = {
    "a6000x2": Profile(n_gpus=2),
    "a6000x1": Profile(n_gpus=1, train_cpu="8", train_memory="48Gi", shared_memory="8Gi"),
    "cpu": Profile(n_gpus=0, train_cpu="8", train_memory="32Gi", shared_memory="8Gi"),
    # On a laptop an error should be seen at once, not after three retries.
    "local": Profile(n_gpus=0, n_retries=0),
}
_LIGHT_TIMEOUT_SECONDS = 2 * 3600


def _source_digest(exclude: tuple[str, ...] = ()) -> str:
    """16 hex characters over the Python sources and the pinned versions; `exclude` names folders left out."""
    sources = [*sorted((_ROOT / "components").rglob("*.py")), _ROOT / "constraints.txt"]
    digest = hashlib.sha256()
    for source in sources:
        name = source.relative_to(_ROOT).as_posix()
        if not name.startswith(exclude):
            digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


CPU_IMAGE = f"{_REGISTRY}/cpu:src-{_source_digest(_TRAINER_ONLY)}"
TRAINER_IMAGE = f"{_REGISTRY}/trainer:src-{_source_digest()}"


def light(task: dsl.PipelineTask, profile: Profile, *, memory: str = "8Gi") -> dsl.PipelineTask:
    """A step on CPU: a small request, a timeout, retries."""
    task.set_cpu_request("2").set_cpu_limit("4").set_memory_request("2Gi").set_memory_limit(memory)
    kubernetes.set_timeout(task, _LIGHT_TIMEOUT_SECONDS)
    return _with_retries(task, profile)


def training(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """A torchrun step: GPUs on the right nodes, memory-backed /dev/shm for NCCL and data loading, timeout, retries."""
    task.set_cpu_request(profile.train_cpu).set_cpu_limit(profile.train_cpu)
    task.set_memory_request(profile.train_memory).set_memory_limit(profile.train_memory)
    if profile.n_gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(profile.n_gpus)
        kubernetes.add_node_selector(task, label_key="nvidia.com/gpu.product", label_value=profile.gpu_product)
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    kubernetes.empty_dir_mount(
        task,
        volume_name="dshm",
        mount_path="/dev/shm",  # noqa: S108
        medium="Memory",
        size_limit=profile.shared_memory,
    )
    kubernetes.set_timeout(task, profile.train_timeout_seconds)
    return _with_retries(task, profile)


def _with_retries(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    if profile.n_retries:
        task.set_retry(profile.n_retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    return task
