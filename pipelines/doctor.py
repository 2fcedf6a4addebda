"""Is this cluster ready for the pipeline? One line for each thing a run needs, and what to do where it is missing."""

import base64
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client import ApiClient, ApiException
from kubernetes.config import ConfigException
from kubernetes.utils import parse_quantity
from urllib3.exceptions import HTTPError

from components.shared.errors import ConfigError, StreetVisionError, one_line
from components.shared.store import Store, StoreSettings, split_uri
from pipelines.resources import STORE_SECRET, STORE_VARIABLES, Profile

_APPLY = "kubectl apply -k manifests/overlays/a6000"
_NEEDED_KEYS = ("STREETVISION_S3_ENDPOINT", "STREETVISION_S3_ACCESS_KEY", "STREETVISION_S3_SECRET_KEY")
_OLDEST_KFP = (2, 16)
_GPU = "nvidia.com/gpu"


class Missing(Exception):  # noqa: N818 - a finding, no error
    """What a check did not find; `fix` says what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.fix = fix


@dataclass(frozen=True)
class Line:
    """Outcome of one check; fix is "" where it passed."""

    check: str
    passed: bool
    found: str
    fix: str


def kubernetes_api() -> ApiClient:
    """The API that kubectl would talk to, or the pod's own. Raises ConfigError where none is configured."""
    try:
        config.load_config(config_file=os.environ.get("KUBECONFIG"))
    except ConfigException as error:
        raise ConfigError(f"no cluster is configured ({one_line(error)}); set KUBECONFIG") from error
    return ApiClient()


def examine(
    api: ApiClient, namespace: str, kfp_namespace: str, profile: Profile, store_endpoint: str
) -> Iterator[Line]:
    """Yield a line for each check; `store_endpoint` replaces the secret's, for a port forwarded to this machine."""
    core = client.CoreV1Api(api)
    patient = _Patient(core, client.AppsV1Api(api), namespace, kfp_namespace, profile, store_endpoint)
    checks: dict[str, Callable[[], str]] = {
        "namespace": patient.namespace_found,
        "service account": patient.service_account,
        "secret": patient.secret,
        "launcher configuration": patient.launcher,
        "nodes and GPUs": patient.gpus,
        "object store": patient.store,
        "KFP API": patient.kfp,
    }
    for name, check in checks.items():
        yield _line(name, check)


def _line(name: str, check: Callable[[], str]) -> Line:
    try:
        return Line(name, True, check(), "")
    except Missing as missing:
        return Line(name, False, str(missing), missing.fix)
    except StreetVisionError as error:
        return Line(name, False, one_line(error), "see the message")
    except ApiException as error:
        if error.status == 403:
            return Line(name, False, "these credentials may not look", "ask for read access, or have an admin run this")
        return Line(name, False, f"HTTP {error.status} {error.reason}", "see the API server's log")
    except HTTPError as error:
        return Line(name, False, f"cluster cannot be reached ({type(error).__name__})", "check KUBECONFIG and network")


class _Patient:
    """The cluster, looked at once for each check; each returns what was found or raises Missing."""

    def __init__(
        self, core: Any, apps: Any, namespace: str, kfp_namespace: str, profile: Profile, store_endpoint: str
    ) -> None:
        self._core, self._apps = core, apps
        self._namespace, self._kfp_namespace, self._profile = namespace, kfp_namespace, profile
        self._store_endpoint = store_endpoint

    def namespace_found(self) -> str:
        found = _existing(lambda: self._core.read_namespace(self._namespace), self._namespace)
        level = (found.metadata.labels or {}).get("pod-security.kubernetes.io/enforce", "none")
        return f"{self._namespace}, Pod Security level {level}"

    def service_account(self) -> str:
        name = "streetvision-runner"
        _existing(lambda: self._core.read_namespaced_service_account(name, self._namespace), name)
        return name

    def secret(self) -> str:
        return f"{STORE_SECRET} with {', '.join(sorted(self._secret()))}"

    def launcher(self) -> str:
        root, provider = self._launcher()
        reference = provider["credentials"].get("secretRef") or {}
        wanted = {reference.get("accessKeyKey", ""), reference.get("secretKeyKey", "")}
        if reference.get("secretName") != STORE_SECRET or not wanted <= self._secret().keys():
            raise Missing(f"its secretRef leads to {reference or 'nothing'}", f"name {STORE_SECRET} and its keys there")
        return f"{root} at {provider.get('endpoint', 'the default endpoint')}"

    def gpus(self) -> str:
        if not self._profile.n_gpus:
            return "none needed"
        selector = ",".join(f"{key}={value}" for key, value in self._profile.training.gpu_nodes.items())
        nodes = self._core.list_node(label_selector=selector).items
        if not nodes:
            raise Missing(
                f"no node has {selector}", "label the nodes (GPU feature discovery), or use another --profile"
            )
        free = {node.metadata.name: self._free_gpus(node) for node in nodes}
        shown = ", ".join(f"{name}: {count} free" for name, count in sorted(free.items()))
        if max(free.values()) < self._profile.n_gpus:
            raise Missing(shown, f"a run waits until a node has {self._profile.n_gpus} free; or use --profile a6000x1")
        return shown

    def store(self) -> str:
        values = self._secret()
        if self._store_endpoint:
            values["STREETVISION_S3_ENDPOINT"] = self._store_endpoint
        settings = StoreSettings.from_environment(values)
        bucket, _ = split_uri(self._launcher()[0])
        Store(settings, deadline_seconds=10).require_conditional_writes(bucket)
        return f"{settings.endpoint} bucket {bucket!r}, conditional writes honoured"

    def kfp(self) -> str:
        deployment = _existing(
            lambda: self._apps.read_namespaced_deployment("ml-pipeline", self._kfp_namespace),
            f"deployment ml-pipeline in {self._kfp_namespace}",
            "install Kubeflow Pipelines, or give --kfp-namespace",
        )
        image = deployment.spec.template.spec.containers[0].image
        version = re.search(r":v?(\d+)\.(\d+)", image)
        if version is None:
            raise Missing(f"version of {image} cannot be told", f"check that it is {_shown(_OLDEST_KFP)} or later")
        if (int(version[1]), int(version[2])) < _OLDEST_KFP:
            fix = f"upgrade to {_shown(_OLDEST_KFP)}, or lower the namespace's Pod Security level to baseline"
            raise Missing(f"{version[1]}.{version[2]}", fix)
        return f"{version[1]}.{version[2]}"

    def _secret(self) -> dict[str, str]:
        found = _existing(lambda: self._core.read_namespaced_secret(STORE_SECRET, self._namespace), STORE_SECRET)
        values = {key: base64.b64decode(value).decode() for key, value in (found.data or {}).items()}
        missing = [key for key in _NEEDED_KEYS if not values.get(key)]
        if missing:
            raise Missing(f"{STORE_SECRET} has no {', '.join(missing)}", "complete s3.env of the overlay and apply it")
        known = {f"STREETVISION_S3_{name}" for name in STORE_VARIABLES}
        return {key: value for key, value in values.items() if key in known}

    def _launcher(self) -> tuple[str, dict[str, Any]]:
        name = "kfp-launcher"
        data = _existing(lambda: self._core.read_namespaced_config_map(name, self._namespace), name).data or {}
        root = data.get("defaultPipelineRoot", "")
        provider = ((yaml.safe_load(data.get("providers", "")) or {}).get("s3") or {}).get("default") or {}
        if not root.startswith("s3://") or "credentials" not in provider:
            raise Missing(f"{name} has no s3:// root or no s3 provider", _APPLY)
        return root, provider

    def _free_gpus(self, node: Any) -> int:
        pods = self._core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node.metadata.name}").items
        running = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
        wanted = [c.resources.requests or {} for pod in running for c in pod.spec.containers if c.resources]
        used = sum(int(parse_quantity(requests.get(_GPU, "0"))) for requests in wanted)
        return int(parse_quantity(node.status.allocatable.get(_GPU, "0"))) - used


def _existing(read: Callable[[], Any], name: str, fix: str = _APPLY) -> Any:
    try:
        return read()
    except ApiException as error:
        if error.status == 404:
            raise Missing(f"{name} is not there", fix) from None
        raise


def _shown(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
