"""What the pods of a run need in their namespace, where Kubernetes may be asked."""

from collections.abc import Callable

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.shared.contracts.environment import Variable
from pipelines.doctor.findings import Check, Passed, Status, evaluate, missing
from pipelines.doctor.namespace import namespace, resolved_launcher, store_secret
from pipelines.doctor.network import api_access
from pipelines.doctor.target import Target
from pipelines.kubeflow.launcher import CONFIG_MAP
from pipelines.kubeflow.reader import ClusterReader
from pipelines.preflight.findings import Preflight
from pipelines.resources import STORE_CONFIG


def check_namespace(reader: ClusterReader, target: Target, account: str) -> Preflight:
    """Refuse a namespace without the account, Secret or settings that the pods need.

    account: service account of the steps' pods. What these credentials may not look at is passed
    over.
    """
    found = Preflight()
    if _is_elsewhere(reader, target.namespace):
        found.remarks.append(
            f"namespace {target.namespace!r} is not in the cluster that kubectl points to, where"
            " nothing was looked at"
        )
        return found

    if not target.multi_user:
        found.refusals += _refusals({"namespace": lambda: namespace(reader, target)})
    if not found.refusals:  # in another namespace than the run's, all that follows would be missing
        where = f" in namespace {target.namespace!r} of kubectl's cluster"
        found.refusals += _refusals(_checks(reader, target, account), where)

    return found


def service_account(reader: ClusterReader, target: Target, account: str) -> Passed:
    """The account exists.

    Without it Argo makes no pod, and the run fails within seconds without a reason.
    """
    if not reader.has_service_account(account):
        raise missing(
            f"{account} is not there, so no pod of a run could be made", target.apply_runner
        )
    return Passed(account)


def store_settings(reader: ClusterReader, target: Target) -> Passed:
    """The steps are told where the object store is."""
    settings = reader.config_map(STORE_CONFIG)
    if settings is None or not settings.data.get(Variable.S3_ENDPOINT):
        what = "is not there" if settings is None else f"has no {Variable.S3_ENDPOINT}"
        raise missing(f"{STORE_CONFIG} {what}, so no step could read s3://", target.apply_store)
    return Passed(settings.data[Variable.S3_ENDPOINT])


def launcher(reader: ClusterReader, target: Target) -> Passed:
    """KFP's launcher can resolve the pipeline root and finds its credentials."""
    store = resolved_launcher(reader)
    # Where steps take the same Secret, `store_secret` tells it.
    if store.secret and store.secret not in target.profile.secrets.of_steps():
        values = reader.secret(store.secret) or {}
        absent = [key for key in (store.access_key, store.secret_key) if not values.get(key)]
        if absent:
            raise missing(
                f"the Secret {store.secret} that {CONFIG_MAP} names for {store.root} has no"
                f" {' and no '.join(absent)}",
                f"create it, or name another one in {CONFIG_MAP}",
            )

    return Passed(store.root)


def _checks(reader: ClusterReader, target: Target, account: str) -> dict[str, Check]:
    return {
        "service account": lambda: service_account(reader, target, account),
        "store secret": lambda: store_secret(reader, target),
        "store settings": lambda: store_settings(reader, target),
        "launcher configuration": lambda: launcher(reader, target),
        "network policy": lambda: api_access(reader),
    }


def _refusals(checks: dict[str, Callable[[], Passed]], where: str = "") -> list[str]:
    findings = [evaluate(name, check) for name, check in checks.items()]
    return [
        f"{finding.check}{where}: {finding.found}; {finding.advice}"
        for finding in findings
        if finding.status is Status.MISSING
    ]


def _is_elsewhere(reader: ClusterReader, name: str) -> bool:
    """Whether kubectl's cluster is certain to have no such namespace."""
    try:
        return reader.labels(name) is None
    except (ApiException, HTTPError):
        return False
