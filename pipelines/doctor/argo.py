"""Checks of the workflow controller's settings: its log archive and its retry policy."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipelines.doctor.findings import Check, Passed, missing, unknown
from pipelines.doctor.target import Target
from pipelines.kubeflow.launcher import KFP_SECRET
from pipelines.kubeflow.reader import ClusterReader, ConfigMap, if_allowed

_CONTROLLER = "workflow-controller-configmap"
_REPOSITORIES = "artifact-repositories"
_DEFAULT_REPOSITORY = "workflows.argoproj.io/default-artifact-repository"
_NOT_READABLE = ConfigMap({}, {})
# What KFP 2.17.0 installs, for those who may not read the controller's ConfigMap.
_STOCK_REPOSITORY = {
    "archiveLogs": True,
    "s3": {
        "accessKeySecret": {"name": KFP_SECRET, "key": "accesskey"},
        "secretKeySecret": {"name": KFP_SECRET, "key": "secretkey"},
    },
}
_RETRIES = {
    "OnError": (
        "Argo starts a deleted pod again; a failed training process is restarted inside its pod"
    ),
    "OnFailure": (
        "Argo starts a failed process again, also after a permanent error, and a deleted pod never"
    ),
    "Always": "Argo starts deleted pods and failed processes again, also after a permanent error",
    "OnTransientError": "Argo starts again only what it takes for a fault of the cluster",
}
_RETRY_ADVICE = (
    "KFP 2.17 ships OnError (workflowDefaults, templateDefaults.retryStrategy); an admin can set it"
)


def argo_checks(reader: ClusterReader, target: Target) -> dict[str, Check]:
    """Return the checks by name, in the order in which they are shown."""
    return {
        "log archive": lambda: log_archive(reader, target),
        "retries": lambda: retries(reader, target),
    }


def log_archive(reader: ClusterReader, target: Target) -> Passed:
    """The Secret of Argo's log archive is in the namespace.

    Without it every pod waits for ever to mount it.

    Source: Argo 4.0.5, workflow/artifactrepositories and workflow/controller/workflowpod.go
    (addArchiveLocation).
    """
    repository, place = _artifact_repository(reader, target)
    if not repository.get("archiveLogs"):
        return Passed(f"off ({place}); KFP keeps the logs of steps in the pipeline root")

    for name, keys in _secret_keys(repository).items():
        values = reader.secret(name)
        absent = (
            sorted(keys) if values is None else [key for key in sorted(keys) if key not in values]
        )
        if absent:
            what = (
                f"{name} is not there"
                if values is None
                else f"{name} has no {' and no '.join(absent)}"
            )
            raise missing(
                f"{what}, and {place} makes every pod wait for it for ever",
                _archive_advice(target, name),
            )

    endpoint = (repository.get("s3") or {}).get("endpoint", "KFP's object store")

    return Passed(f"to {endpoint} ({place}); its Secret is there")


def retries(reader: ClusterReader, target: Target) -> Passed:
    """What Argo starts again by itself; informs, since the steps do not depend on it."""
    found = reader.config_map(_CONTROLLER, target.kfp_namespace)
    if found is None:
        raise unknown(
            f"{target.kfp_namespace} has no {_CONTROLLER}",
            "give --kfp-namespace, that of Argo's controller",
        )

    defaults = _mapping(found.data.get("workflowDefaults", ""))
    for key in ("spec", "templateDefaults", "retryStrategy"):
        defaults = defaults.get(key) or {}
    policy = str(
        defaults.get("retryPolicy") or "OnFailure"
    )  # Argo's own default, RetryPolicyActual
    meaning = _RETRIES.get(policy, "not a policy of Argo")

    return Passed(f"retryPolicy {policy}: {meaning}", "" if policy == "OnError" else _RETRY_ADVICE)


def _artifact_repository(reader: ClusterReader, target: Target) -> tuple[Mapping[str, Any], str]:
    """The repository that Argo takes for this namespace, and which object says so."""
    own = reader.config_map(_REPOSITORIES)
    if own is not None:
        key = own.annotations.get(_DEFAULT_REPOSITORY, "")
        if key in own.data:
            return _mapping(own.data[key]), f"{_REPOSITORIES} of {target.namespace}"

    controller = if_allowed(
        lambda: reader.config_map(_CONTROLLER, target.kfp_namespace), _NOT_READABLE
    )
    if controller is _NOT_READABLE:
        return _STOCK_REPOSITORY, "KFP's stock setting"

    text = controller.data.get("artifactRepository", "") if controller else ""

    return _mapping(text), f"{_CONTROLLER} of {target.kfp_namespace}"


def _secret_keys(repository: Mapping[str, Any]) -> dict[str, set[str]]:
    """Names of the Secrets that Argo mounts for a repository, with the keys it needs in each."""
    wanted: dict[str, set[str]] = {}
    for location in repository.values():
        for field, selector in location.items() if isinstance(location, dict) else ():
            if (
                field.endswith("Secret")
                and isinstance(selector, dict)
                and selector.get("name")
                and selector.get("key")
            ):
                wanted.setdefault(str(selector["name"]), set()).add(str(selector["key"]))

    return wanted


def _archive_advice(target: Target, secret: str) -> str:
    if not target.multi_user:
        return (
            f"install it again with KFP's manifests, or create {secret} with the object store's"
            " credentials"
        )
    return (
        "KFP's profile controller makes it where the namespace has the label"
        f" pipelines.kubeflow.org/enabled=true; an {_REPOSITORIES} of the namespace's own with"
        " archiveLogs false does without"
    )


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return document if isinstance(document, dict) else {}
