"""Read access to a cluster; each request has a deadline, and an absent object is None."""

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import ConfigException

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, PermanentError, one_line

_TIMEOUT_SECONDS = (3.0, 10.0)  # to connect, and between two packets of an answer
_PAGE = 500
_MOST_PAGES = 20
_KUEUE = ("kueue.x-k8s.io", ("v1beta2", "v1beta1"))
T = TypeVar("T")
U = TypeVar("U")


class TooManyObjectsError(PermanentError):
    """A list has more pages than are read here."""


def kubernetes_api() -> ApiClient:
    """Return the API that kubectl would ask, or in a pod the cluster's own.

    Raises ConfigError where none is known.
    """
    files = (os.environ.get(Variable.KUBECONFIG) or "~/.kube/config").split(os.pathsep)
    configuration = Configuration()
    try:
        if (
            any(Path(file).expanduser().is_file() for file in files)
            or Variable.KUBERNETES_SERVICE_HOST not in os.environ
        ):
            config.load_kube_config(
                config_file=os.pathsep.join(files), client_configuration=configuration
            )
        else:
            config.load_incluster_config(client_configuration=configuration)
    except ConfigException as error:
        raise ConfigError(
            f"no cluster is configured ({one_line(error)}); set {Variable.KUBECONFIG}"
        ) from error

    configuration.retries = False

    return ApiClient(configuration)


def if_allowed(read: Callable[[], T], otherwise: U) -> T | U:
    """Return what `read` returns, or `otherwise` where these credentials may not look."""
    try:
        return read()
    except ApiException as error:
        if error.status == 403:
            return otherwise
        raise


@dataclass(frozen=True)
class ConfigMap:
    """Data and annotations of a ConfigMap."""

    data: dict[str, str]
    annotations: dict[str, str]


class ClusterReader:
    """Objects of one namespace, of KFP's namespace and of the cluster, as Kubernetes' models.

    Every method raises kubernetes.client.ApiException for an answer other than 200 and 404.
    """

    def __init__(self, api: ApiClient) -> None:
        self.namespace = ""  # that of the runs, which is found later
        self._api = api
        self._core = client.CoreV1Api(api)
        self._known: dict[tuple[Any, ...], Any] = {}

    def version(self) -> str:
        """Return the version of Kubernetes, such as v1.34.4."""
        return str(
            client.VersionApi(self._api).get_code(_request_timeout=_TIMEOUT_SECONDS).git_version
        )

    def labels(self, namespace: str) -> dict[str, str] | None:
        """Return the labels of a namespace, None where it does not exist."""
        found = self._read(self._core.read_namespace, namespace)
        return None if found is None else dict(found.metadata.labels or {})

    def has_service_account(self, name: str) -> bool:
        """Whether the namespace has it."""
        return (
            self._read(self._core.read_namespaced_service_account, name, self.namespace) is not None
        )

    def may(self, account: str, verb: str, group: str, resource: str, name: str = "") -> bool:
        """Whether Kubernetes would let a service account of the namespace do this.

        `resource`: its plural name, as in "pods", or a part of it, as in "pods/log".
        The review is not stored.
        """
        resource, _, part = resource.partition("/")
        attributes = client.V1ResourceAttributes(
            namespace=self.namespace,
            verb=verb,
            group=group,
            resource=resource,
            subresource=part or None,
            name=name or None,
        )
        user = f"system:serviceaccount:{self.namespace}:{account}"
        spec = client.V1SubjectAccessReviewSpec(resource_attributes=attributes, user=user)
        review = client.V1LocalSubjectAccessReview(
            api_version="authorization.k8s.io/v1",
            kind="LocalSubjectAccessReview",
            metadata=client.V1ObjectMeta(namespace=self.namespace),
            spec=spec,
        )

        answer = client.AuthorizationV1Api(self._api).create_namespaced_local_subject_access_review(
            self.namespace, review, _request_timeout=_TIMEOUT_SECONDS
        )

        return bool(answer.status.allowed)

    def secret(self, name: str) -> dict[str, str] | None:
        """Return the decoded values of a Secret, None where it does not exist."""
        found = self._read(self._core.read_namespaced_secret, name, self.namespace)
        if found is None:
            return None
        return {
            key: base64.b64decode(value).decode(errors="replace").strip()
            for key, value in (found.data or {}).items()
        }

    def config_map(self, name: str, namespace: str | None = None) -> ConfigMap | None:
        """Return a ConfigMap, None where it does not exist."""
        found = self._read(self._core.read_namespaced_config_map, name, namespace or self.namespace)
        if found is None:
            return None
        return ConfigMap(dict(found.data or {}), dict(found.metadata.annotations or {}))

    def service(self, name: str) -> Any | None:
        """Return a Service of the namespace, None where it does not exist."""
        return self._read(self._core.read_namespaced_service, name, self.namespace)

    def network_policy(self, name: str) -> Any | None:
        """Return a NetworkPolicy of the namespace, None where it does not exist."""
        network = client.NetworkingV1Api(self._api)
        return self._read(network.read_namespaced_network_policy, name, self.namespace)

    def api_addresses(self) -> list[tuple[str, int]]:
        """Return address and port of every server of the Kubernetes API."""
        slices = self._list(
            client.DiscoveryV1Api(self._api).list_namespaced_endpoint_slice,
            "default",
            label_selector="kubernetes.io/service-name=kubernetes",
        )
        return [
            (address, port.port)
            for found in slices
            for port in found.ports or []
            for endpoint in found.endpoints or []
            for address in endpoint.addresses
        ]

    def nodes(self) -> list[Any]:
        """Return all nodes."""
        return self._list(self._core.list_node)

    def active_pods(self) -> list[Any]:
        """Return the pods of all namespaces that have not ended."""
        selector = "status.phase!=Succeeded,status.phase!=Failed"
        return self._list(self._core.list_pod_for_all_namespaces, field_selector=selector)

    def pods(self, label_selector: str, namespace: str | None = None) -> list[Any]:
        """Return the pods of a namespace that have these labels."""
        return self._list(
            self._core.list_namespaced_pod,
            namespace or self.namespace,
            label_selector=label_selector,
        )

    def pod_events(self) -> list[Any]:
        """Return the namespace's events of pods; Kubernetes keeps them for an hour."""
        return self._list(
            self._core.list_namespaced_event,
            self.namespace,
            field_selector="involvedObject.kind=Pod",
        )

    def quotas(self) -> list[Any]:
        """Return the namespace's ResourceQuotas."""
        return self._list(self._core.list_namespaced_resource_quota, self.namespace)

    def limit_ranges(self) -> list[Any]:
        """Return the namespace's LimitRanges."""
        return self._list(self._core.list_namespaced_limit_range, self.namespace)

    def local_queues(self) -> list[dict[str, Any]] | None:
        """Return the namespace's LocalQueues, None where the cluster has no Kueue."""
        group, versions = _KUEUE
        custom = client.CustomObjectsApi(self._api)
        for version in versions:
            found = self._read(
                custom.list_namespaced_custom_object, group, version, self.namespace, "localqueues"
            )
            if found is not None:
                return list(found.get("items") or [])

        return None

    def resources(self, group: str, version: str) -> set[str] | None:
        """Return the plural names of what the API serves of a group, None where it has none."""
        found = self._read(client.CustomObjectsApi(self._api).get_api_resources, group, version)
        return None if found is None else {resource.name for resource in found.resources}

    def has_object(self, group: str, version: str, plural: str, name: str) -> bool:
        """Whether the namespace has an object of a custom resource."""
        return self.custom_object(group, version, plural, name) is not None

    def custom_object(
        self, group: str, version: str, plural: str, name: str
    ) -> dict[str, Any] | None:
        """Return an object of a custom resource, None where the namespace has none."""
        custom = client.CustomObjectsApi(self._api)
        found: dict[str, Any] | None = self._read(
            custom.get_namespaced_custom_object, group, version, self.namespace, plural, name
        )
        return found

    def _read(self, call: Callable[..., Any], *arguments: Any) -> Any | None:
        """Ask once for each object; None for an answer of 404."""
        asked = (call.__name__, *arguments)
        if asked not in self._known:
            try:
                self._known[asked] = call(*arguments, _request_timeout=_TIMEOUT_SECONDS)
            except ApiException as error:
                if error.status != 404:
                    raise
                self._known[asked] = None

        return self._known[asked]

    def _list(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        asked = (call.__name__, *arguments, *sorted(options.items()))
        if asked not in self._known:
            self._known[asked] = self._pages(call, *arguments, **options)
        return list(self._known[asked])

    def _pages(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        items: list[Any] = []
        token = None
        for _ in range(_MOST_PAGES):
            if token:
                options["_continue"] = token
            page = call(*arguments, limit=_PAGE, _request_timeout=_TIMEOUT_SECONDS, **options)
            items += page.items
            token = page.metadata._continue
            if not token:
                return items

        raise TooManyObjectsError(
            f"there are more than {len(items)} objects to look at; look with kubectl"
        )
