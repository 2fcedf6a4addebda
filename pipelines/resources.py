"""Resources of the steps: a profile, and its translation into KFP's task settings.

A profile is chosen when the pipeline is compiled and is in no cache key, so that a resize makes no
step run again. Shipped profiles are the YAML files of `pipelines/profiles`; a user's own file has
the same keys.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from kfp import dsl, kubernetes
from kubernetes.utils import parse_quantity

from components.container import SETTINGS_FOLDER
from components.shared.contracts.config import Config, option, unknown_keys
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown
from pipelines.plain_yaml import read_yaml
from pipelines.sources import DEFAULT_REGISTRY, code_commit, pushed_images, registry_of

PROFILES = Path(__file__).with_name("profiles")
PROFILE_NAMES = tuple(sorted(file.stem for file in PROFILES.glob("*.yaml")))
STORE_CONFIG = "streetvision-store"
# Settings of the object store that are no secrets; keys of STORE_CONFIG and variables of the same
# name.
STORE_VARIABLES: tuple[str, ...] = (Variable.S3_ENDPOINT, Variable.S3_SECURE, Variable.S3_REGION)
# Names of the Secrets that manifests/base/credentials makes, by the role of the store's user. The
# team's is for people, and no step is given it.
OWN_STORE_SECRETS = {
    "data": "streetvision-data",
    "runs": "streetvision-runs",
    "checkpoints": "streetvision-checkpoints",
    "registry": "streetvision-registry",
}
TEAM_SECRET = "streetvision-team"  # noqa: S105 - a name
STORE_CA = "streetvision-store-ca"  # ConfigMap of manifests/components/tls
CA_FOLDER = "/streetvision/ca"  # of the file that manifests/components/tls/settings names
SIGNING_FOLDER = "/streetvision/signing"
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
GPU = "nvidia.com/gpu"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_USER = 10001  # that of images/Dockerfile
_BACKOFF_SECONDS, _BACKOFF_FACTOR = 30, 2
_QUANTITIES = (
    "cpu_request",
    "cpu_limit",
    "memory_request",
    "memory_limit",
    "scratch",
    "shared_memory",
)

Role = Literal["data", "runs", "checkpoints", "registry"]
ROLES: tuple[Role, ...] = get_args(Role)
_QUEUE = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")  # the value of a label
C = TypeVar("C", bound=Config)


@dataclass(frozen=True, kw_only=True)
class StepResources(Config):
    """Requests and limits of one kind of step; quantities as Kubernetes writes them."""

    cpu_request: str = option("250m", "CPUs the scheduler reserves.")
    cpu_limit: str = option("4", "CPUs the step may use.")
    memory_request: str = option("1Gi", "Memory the scheduler reserves.")
    memory_limit: str = option("8Gi", "Memory above which the kernel ends the step.")
    scratch: str = option("20Gi", "Size of /tmp.")
    timeout_seconds: int = option(7200, "Time after which Kubernetes ends the step.", ge=60)

    def check(self) -> list[str]:
        """Quantities must be Kubernetes', and no request above its limit."""
        problems = []
        for name in _QUANTITIES:
            if hasattr(self, name) and _amount(getattr(self, name)) is None:
                problems.append(
                    f"{name}={getattr(self, name)!r} must be a Kubernetes quantity, such as 500m or"
                    " 96Gi"
                )

        if not problems:
            for kind in ("cpu", "memory"):
                request, limit = getattr(self, f"{kind}_request"), getattr(self, f"{kind}_limit")
                if parse_quantity(request) > parse_quantity(limit):
                    problems.append(
                        f"{kind}_request={request!r} must not exceed {kind}_limit={limit!r}"
                    )

        return problems


@dataclass(frozen=True, kw_only=True)
class TrainingResources(StepResources):
    """Requests and limits of a step that runs torchrun, and the nodes it may run on."""

    gpus: int = option(0, "GPUs of each node; torchrun starts one rank for each.", ge=0)
    n_nodes: int = option(
        1,
        "Nodes of a training of the classifier or the backbone; above 1 it runs as a TrainJob of"
        " Kubeflow Trainer, and all other steps on one node.",
        ge=1,
        le=1024,
    )
    nccl: dict[str, str] = option(
        {}, "NCCL's variables, such as NCCL_SOCKET_IFNAME, for the ranks of training steps."
    )
    node_labels: dict[str, str] = option({}, "Labels that a node must have.")
    tolerations: tuple[dict[str, Any], ...] = option(
        (), "Taints that a node may have, as Kubernetes writes them."
    )
    shared_memory: str = option("8Gi", "Size of /dev/shm, which is memory.")

    def check(self) -> list[str]:
        """Tolerations have Kubernetes' fields; what stands in `nccl` is NCCL's."""
        known = {"key", "operator", "value", "effect", "tolerationSeconds"}
        unknown = sorted({name for toleration in self.tolerations for name in toleration} - known)
        foreign = sorted(name for name in self.nccl if not name.startswith("NCCL_"))
        return (
            super().check()
            + ([f"tolerations have unknown field(s) {unknown}"] if unknown else [])
            + ([f"nccl has {foreign}: names must begin with NCCL_"] if foreign else [])
        )


@dataclass(frozen=True, kw_only=True)
class Secrets(Config):
    """Names of Secrets in the namespace of the runs, and of the keys in them; never a value.

    A store with one user has one Secret, `store`; a store with a user for each role has four more,
    and a step is given that of its role only.
    """

    store: str = option(
        "mlpipeline-minio-artifact", "Secret with the object store's credentials; KFP's own."
    )
    data: str = option("", "Secret of the user who reads data; empty: store.")
    runs: str = option("", "Secret of the user who writes runs and lineages; empty: store.")
    checkpoints: str = option("", "Secret of the user who writes checkpoints; empty: store.")
    registry: str = option("", "Secret of the user who writes the registry; empty: store.")
    store_access_key: str = option("accesskey", "Key of the access key in it.")
    store_secret_key: str = option("secretkey", "Key of the secret key in it.")
    hub: str = option(
        "streetvision-hub",
        f"Optional Secret with {Variable.HUB_TOKEN}, for gated backbones of the hub.",
    )
    webhook: str = option(
        "streetvision-webhook",
        f"Optional Secret whose key `secret` is {Variable.WEBHOOK_SECRET}, for on_promotion.",
    )
    signing: str = option(
        "streetvision-signing",
        f"Optional Secret with the file that {Variable.SIGNING_KEY} names, for the export only.",
    )
    image_pull: tuple[str, ...] = option((), "Secrets of private registries.")

    def of(self, role: Role) -> str:
        """Return the name of the Secret of a role."""
        named: str = getattr(self, role)
        return named or self.store

    def of_steps(self) -> tuple[str, ...]:
        """Return the names of the Secrets that steps are given, each once."""
        return tuple(dict.fromkeys(self.of(role) for role in ROLES))


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Resources of all steps of a pipeline.

    light: steps that read tables; ingest: those that decode the images; heavy: others that hold
    images or weights in memory; training: steps that run torchrun. n_retries: how often Argo starts
    a step's pod again. queue: Kueue's LocalQueue for training, "" without Kueue; the label has an
    effect only where Kueue manages pods. registry: prefix of the images' names, which no profile
    file has.
    """

    name: str
    light: StepResources = field(default_factory=StepResources)
    # A core decodes some 20 photographs of 12 megapixels a second: a million take 4 hours on 4.
    ingest: StepResources = field(
        default_factory=lambda: StepResources(
            cpu_request="500m", memory_limit="16Gi", scratch="100Gi", timeout_seconds=86400
        )
    )
    heavy: StepResources = field(default_factory=lambda: StepResources(memory_limit="16Gi"))
    training: TrainingResources
    secrets: Secrets = field(default_factory=Secrets)
    n_retries: int = 3
    queue: str = ""
    image_pull_policy: str = "IfNotPresent"
    registry: str = DEFAULT_REGISTRY


def load_profile(
    name: str,
    *,
    queue: str = "",
    store_secret: str = "",
    own_store: bool = False,
    registry: str = "",
) -> Profile:
    """Read a shipped profile by its name, or a YAML file.

    `queue` and `store_secret` replace the profile's where given; `store_secret` serves all roles,
    `own_store` gives each role the Secret of manifests/base/credentials. The images' registry is
    `registry`, else that of the environment.

    Raises ConfigError that names the file, the field and the value.
    """
    file = PROFILES / f"{name}.yaml" if name in PROFILE_NAMES else Path(name)
    if file.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"--profile {name!r} is neither of {', '.join(PROFILE_NAMES)} nor a .yaml file"
        )

    document = read_yaml(file, f"profile {file}")
    try:
        profile = _profile(file.stem, _mapping(document))
        _check_queue(queue or profile.queue)
    except ConfigError as error:
        raise ConfigError(f"profile {file}: {error}") from error

    if store_secret and own_store:
        raise ConfigError(
            f"--store-secret {store_secret!r} and --own-store exclude each other: one Secret for"
            " all steps, or one for each role"
        )

    secrets = profile.secrets
    if store_secret:
        secrets = dataclasses.replace(
            secrets, store=store_secret, data="", runs="", checkpoints="", registry=""
        )
    if own_store:
        secrets = dataclasses.replace(
            secrets,
            data=OWN_STORE_SECRETS["data"],
            runs=OWN_STORE_SECRETS["runs"],
            checkpoints=OWN_STORE_SECRETS["checkpoints"],
            registry=OWN_STORE_SECRETS["registry"],
        )

    return dataclasses.replace(
        profile,
        queue=queue or profile.queue,
        secrets=secrets,
        registry=registry_of(registry),
    )


def light(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Set a step that reads tables: small requests, scratch space, a timeout, retries."""
    return _any_step(task, profile, profile.light, cost="light")


def ingest(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Set a step that decodes the images: a long timeout, and a store for its finished chunks."""
    return with_store(_any_step(task, profile, profile.ingest, cost="light"), profile, "data")


def heavy(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Set a step without a GPU that holds images or weights in memory."""
    return _any_step(task, profile, profile.heavy, cost="light")


def torchrun(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Set a torchrun step: GPUs on the right nodes, and /dev/shm in memory for NCCL and data."""
    wanted = profile.training
    if wanted.gpus:
        task.set_accelerator_type(GPU).set_accelerator_limit(wanted.gpus)
    if wanted.node_labels:
        for key, value in wanted.node_labels.items():
            kubernetes.add_node_selector(task, key, value)

    for toleration in wanted.tolerations:
        kubernetes.add_toleration_json(task, dict(toleration))

    kubernetes.empty_dir_mount(
        task,
        volume_name="dshm",
        mount_path="/dev/shm",  # noqa: S108
        medium="Memory",
        size_limit=wanted.shared_memory,
    )
    if profile.queue:
        kubernetes.add_pod_label(task, QUEUE_LABEL, profile.queue)
    for name, value in wanted.nccl.items():
        task.set_env_variable(name, value)

    return _any_step(task, profile, wanted, cost="training")


def training(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Set a torchrun step that trains.

    Its checkpoints outlive the pod if STORE_CONFIG names a store for them.
    """
    return with_store(torchrun(task, profile), profile, "checkpoints")


def starter(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Set a step that starts a training on other nodes, and waits for it.

    It holds the inputs and one model, as a heavy step does, for as long as a training.
    """
    wanted = dataclasses.replace(
        profile.heavy,
        scratch=profile.training.scratch,
        timeout_seconds=profile.training.timeout_seconds,
    )
    task = _any_step(task, profile, wanted, cost="light")
    return with_store(task, profile, "checkpoints")


def with_store(task: dsl.PipelineTask, profile: Profile, role: Role) -> dsl.PipelineTask:
    """Give a step the object store's settings, and by reference the credentials of its role.

    Without them in the namespace it runs too.
    """
    kubernetes.use_config_map_as_volume(task, STORE_CONFIG, str(SETTINGS_FOLDER), optional=True)
    kubernetes.use_config_map_as_volume(task, STORE_CA, CA_FOLDER, optional=True)

    keys = {
        profile.secrets.store_access_key: Variable.S3_ACCESS_KEY,
        profile.secrets.store_secret_key: Variable.S3_SECRET_KEY,
    }
    kubernetes.use_secret_as_env(task, profile.secrets.of(role), keys, optional=True)

    return task


def with_signing(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Give the export the key that signs, by reference, and what the provenance records.

    Where the namespace has no such Secret, and STORE_CONFIG names no keys, nothing is signed.
    """
    kubernetes.use_config_map_as_volume(task, STORE_CONFIG, str(SETTINGS_FOLDER), optional=True)
    kubernetes.use_secret_as_volume(task, profile.secrets.signing, SIGNING_FOLDER, optional=True)
    kubernetes.use_field_path_as_env(task, Variable.RUN, "metadata.labels['pipeline/runid']")
    if commit := code_commit():
        task.set_env_variable(Variable.GIT_COMMIT, commit)
    if profile == LOCAL:
        return task  # which runs in no image
    if images := pushed_images(profile.registry):
        task.set_env_variable(Variable.IMAGES, json.dumps(images, sort_keys=True))
    return task.set_env_variable(Variable.IMAGE, task.container_spec.image)


def with_registry(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Give a step what it needs to promote: the store, its run's id, what signs announcements.

    Its Secret is its own: KFP's launcher runs in every pod, and with the launcher's Secret any step
    could move the champion's pointer.
    """
    key = {"secret": Variable.WEBHOOK_SECRET}
    kubernetes.use_secret_as_env(task, profile.secrets.webhook, key, optional=True)
    kubernetes.use_field_path_as_env(task, Variable.RUN, "metadata.labels['pipeline/runid']")
    return with_store(task, profile, "registry")


def with_hub_token(task: dsl.PipelineTask, profile: Profile) -> dsl.PipelineTask:
    """Give a step the Hugging Face Hub's token by reference, where the namespace has one."""
    token = {Variable.HUB_TOKEN: Variable.HUB_TOKEN}
    kubernetes.use_secret_as_env(task, profile.secrets.hub, token, optional=True)
    return task


def retry_window_seconds(n_retries: int, timeout_seconds: int) -> int:
    """Return the time that all attempts and the waits between them can take.

    Argo counts `backoff.maxDuration` from the first attempt's start and ends an attempt that runs
    past it.
    """
    waits = [_BACKOFF_SECONDS * _BACKOFF_FACTOR**attempt for attempt in range(n_retries)]
    return (n_retries + 1) * timeout_seconds + int(sum(waits))


def pod_labels(step: str, cost: str) -> dict[str, str]:
    """Return the labels by which network policies find pods and a cluster's bill is split.

    They say whose pod it is, which step, and which nodes it costs.
    """
    return {
        "app.kubernetes.io/part-of": "streetvision",
        "app.kubernetes.io/component": step,
        "streetvision/cost": cost,
    }


def _any_step(
    task: dsl.PipelineTask, profile: Profile, wanted: StepResources, *, cost: str
) -> dsl.PipelineTask:
    task.set_cpu_request(wanted.cpu_request).set_cpu_limit(wanted.cpu_limit)
    task.set_memory_request(wanted.memory_request).set_memory_limit(wanted.memory_limit)

    for name, value in pod_labels(task.name, cost).items():
        kubernetes.add_pod_label(task, name, value)

    kubernetes.set_security_context(
        task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True
    )
    # The images keep all scratch below /tmp.
    kubernetes.empty_dir_mount(
        task,
        volume_name="scratch",
        mount_path="/tmp",  # noqa: S108
        size_limit=wanted.scratch,
    )

    kubernetes.set_timeout(task, wanted.timeout_seconds)
    kubernetes.set_image_pull_policy(task, profile.image_pull_policy)
    if profile.secrets.image_pull:
        kubernetes.set_image_pull_secrets(task, list(profile.secrets.image_pull))

    if profile.n_retries:
        window = retry_window_seconds(profile.n_retries, wanted.timeout_seconds)
        task.set_retry(
            profile.n_retries, f"{_BACKOFF_SECONDS}s", float(_BACKOFF_FACTOR), f"{window}s"
        )

    return task


def _profile(name: str, document: Mapping[str, Any]) -> Profile:
    sections = {
        "light": StepResources,
        "ingest": StepResources,
        "heavy": StepResources,
        "training": TrainingResources,
        "secrets": Secrets,
    }

    scalars = {"n_retries": int, "queue": str, "image_pull_policy": str}
    problems = unknown_keys(document, [*sections, *scalars])
    if problems:
        raise ConfigError("; ".join(problems))

    if "training" not in document:
        raise ConfigError("training is missing: the requests of the steps that run torchrun")

    values: dict[str, Any] = {"name": name}
    for key, config_class in sections.items():
        if key in document:
            values[key] = _section(key, config_class, _mapping(document[key]))

    for key, kind in scalars.items():
        if key in document:
            if not isinstance(document[key], kind) or isinstance(document[key], bool):
                raise ConfigError(f"{key}={shown(document[key])} must be {kind.__name__}")
            values[key] = document[key]

    profile = Profile(**values)
    if profile.n_retries < 0:
        raise ConfigError(f"n_retries={profile.n_retries} must be >= 0")
    if profile.image_pull_policy not in PULL_POLICIES:
        raise ConfigError(
            f"image_pull_policy={shown(profile.image_pull_policy)} must be one of"
            f" {', '.join(PULL_POLICIES)}"
        )

    return profile


def _check_queue(queue: str) -> None:
    if queue and not _QUEUE.fullmatch(queue):
        raise ConfigError(
            f"queue={shown(queue)} must be lower case letters, digits, '.' and '-', at most 63"
        )


def _section(name: str, config_class: type[C], values: Mapping[str, Any]) -> C:
    """Read one section.

    Quantities that YAML reads as numbers, such as `cpu_request: 1`, are text to Kubernetes.
    """
    texts = {
        key: str(value) if key in _QUANTITIES and type(value) in (int, float) else value
        for key, value in values.items()
    }
    try:
        return config_class.from_mapping(texts)
    except ConfigError as error:
        raise ConfigError(f"{name}: {str(error).partition(': ')[2]}") from None


def _mapping(document: Any) -> Mapping[str, Any]:
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError("must be a mapping of names to values")
    return document


def _amount(quantity: str) -> Any:
    try:
        return parse_quantity(quantity)
    except ValueError:
        return None


# On a laptop an error is shown at once: nothing is retried.
LOCAL = Profile(name="local", training=TrainingResources(), n_retries=0)
