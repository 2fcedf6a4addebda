"""The order of the checks: KFP by its API first, since its mode decides what else is looked at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, StreetVisionError
from pipelines.doctor.argo import argo_checks
from pipelines.doctor.findings import Check, Finding, Status, evaluate, from_error
from pipelines.doctor.images import image_pull
from pipelines.doctor.kfp_checks import KfpApi, kfp_checks, reachable
from pipelines.doctor.namespace import PROFILE_LABEL, namespace, namespace_checks
from pipelines.doctor.network import api_access
from pipelines.doctor.object_store import StoreChecks
from pipelines.doctor.scheduling import scheduling_checks
from pipelines.doctor.target import Target
from pipelines.kubeflow.connection import KFP_NAMESPACE, Connection, Mode
from pipelines.kubeflow.reader import ClusterReader, if_allowed, kubernetes_api
from pipelines.names import PIPELINE
from pipelines.resources import Profile


@dataclass(frozen=True, kw_only=True)
class Where:
    """What the command line says about the place; None where it leaves that to be found.

    kfp_namespace: that of KFP itself. store_endpoint: host:port that replaces the object store's
    address inside the cluster, "" where this machine reaches that one.
    """

    host: str | None = None
    namespace: str | None = None
    ca_file: str | None = None
    pipeline: str = PIPELINE
    kfp_namespace: str | None = None
    store_endpoint: str = ""


def run_checks(where: Where, profile: Profile, images: tuple[str, ...]) -> Iterator[Finding]:
    """Yield a finding for each check, as soon as the check has ended.

    images: references of the steps' images.

    Where KFP's API or the cluster does not answer, the checks that need it are left out.
    """
    api_finding, api = _open_kfp(where)
    yield api_finding
    cluster_finding, reader = _open_cluster()
    mode = api.mode if api is not None else _guessed_mode(where, reader)
    target = Target(
        namespace=mode.namespace,
        kfp_namespace=where.kfp_namespace or (KFP_NAMESPACE if mode.multi_user else mode.namespace),
        multi_user=mode.multi_user,
        profile=profile,
        images=images,
        store_endpoint=where.store_endpoint,
    )

    if api is not None:
        yield from _findings(kfp_checks(api, reader, target, where.pipeline))
    yield cluster_finding
    if reader is not None:
        yield from _cluster(reader, target)


def _open_kfp(where: Where) -> tuple[Finding, KfpApi | None]:
    name = "KFP API"
    try:
        api = KfpApi.open(Connection.resolve(where.host, where.namespace, where.ca_file))
    except StreetVisionError as error:
        return from_error(name, error), None
    return evaluate(name, lambda: reachable(api)), api


def _open_cluster() -> tuple[Finding, ClusterReader | None]:
    name = "Kubernetes API"
    try:
        reader = ClusterReader(kubernetes_api())
        version = if_allowed(reader.version, "its version may not be looked at")
    except ConfigError as error:
        return from_error(name, error, Status.UNKNOWN), None
    except ApiException as error:
        advice = (
            "log in again: kubectl get pods shows the same"
            if error.status == 401
            else "see the server's log"
        )
        return Finding(name, Status.MISSING, f"HTTP {error.status} {error.reason}", advice), None
    except HTTPError as error:
        return (
            Finding(
                name,
                Status.MISSING,
                f"cannot be reached ({_reason(error)})",
                f"check {Variable.KUBECONFIG} and network",
            ),
            None,
        )

    return Finding(name, Status.OK, version), reader


def _guessed_mode(where: Where, reader: ClusterReader | None) -> Mode:
    """The mode by the namespace's labels, where the API does not tell it."""
    connection = Connection(host="", namespace=where.namespace)
    name, origin = connection.find_namespace(multi_user=False)
    labels = if_allowed(lambda: reader.labels(name), None) if reader is not None else None
    key, value = PROFILE_LABEL
    return Mode("", (labels or {}).get(key) == value, name, origin)


def _cluster(reader: ClusterReader, target: Target) -> Iterator[Finding]:
    reader.namespace = target.namespace
    found = evaluate("namespace", lambda: namespace(reader, target))
    yield found

    # In a namespace that is not that of the runs, all that follows would be missing.
    exists = if_allowed(lambda: reader.labels(target.namespace), {}) is not None
    if found.status is not Status.MISSING or (exists and target.multi_user):
        yield from _findings(namespace_checks(reader, target))
        yield from _findings({"network policy": lambda: api_access(reader)})
        yield from _findings(argo_checks(reader, target))
        yield from _findings(StoreChecks(reader, target).checks())
        yield from _findings(scheduling_checks(reader, target))
        yield from _findings({"images": lambda: image_pull(reader, target)})


def _findings(checks: Mapping[str, Check]) -> Iterator[Finding]:
    for name, check in checks.items():
        yield evaluate(name, check)


def _reason(error: HTTPError) -> str:
    text = str(error).rpartition(": ")[2]
    return text if 0 < len(text) < 100 else type(error).__name__
