"""What answers behind the address of the champion, as KServe and Knative Serving report it."""

from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiException

from components.shared.contracts.errors import ConfigError
from pipelines.kubeflow.reader import ClusterReader, if_allowed

_KSERVE = ("serving.kserve.io", "v1beta1", "inferenceservices")
_KNATIVE = ("serving.knative.dev", "v1", "revisions")
FOLLOWS = "champion"  # what a server with --follow serves, whichever that is
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Backend:
    """One of those that answer.

    Attributes:
        role: "champion", or "challenger" beside it.
        percent: Of the requests.
        revision: Of Knative; empty in KServe's standard mode.
        bundle: Digits of its digest, "champion" where it follows the registry, or "unknown".
        ready: Whether it can answer.
    """

    role: str
    percent: int
    revision: str
    bundle: str
    ready: bool


@dataclass(frozen=True)
class ServingStatus:
    """An InferenceService.

    Attributes:
        name: Its name.
        url: Address; empty before there is one.
        ready: Whether all of it is ready.
        reasons: Why it is not, from its conditions.
        backends: Those that answer, the champion first.
    """

    name: str
    url: str
    ready: bool
    reasons: tuple[str, ...]
    backends: tuple[Backend, ...]


def serving_status(reader: ClusterReader, name: str) -> ServingStatus:
    """Return what an InferenceService of the reader's namespace reports.

    Raises:
        ConfigError: There is none of this name, or it may not be looked at.
    """
    try:
        service = reader.custom_object(*_KSERVE, name)
    except ApiException as error:
        raise ConfigError(
            f"InferenceService {name!r} of the namespace {reader.namespace!r} may not be looked at"
            f" (HTTP {error.status} {error.reason})"
        ) from error
    if service is None:
        raise ConfigError(
            f"the namespace {reader.namespace!r} has no InferenceService {name!r}; is it another"
            " --namespace, or is components/serving switched off?"
        )

    status = service.get("status") or {}
    conditions = status.get("conditions") or []
    failed = [entry for entry in conditions if entry.get("status") != "True"]
    return ServingStatus(
        name,
        str(status.get("url") or ""),
        bool(conditions) and not any(entry.get("type") == "Ready" for entry in failed),
        tuple(
            f"{entry.get('type')}: {entry.get('message') or entry.get('reason')}"
            for entry in failed
            if entry.get("message") or entry.get("reason")
        ),
        tuple(_backends(reader, service, bool(not failed))),
    )


def _backends(reader: ClusterReader, service: dict[str, Any], ready: bool) -> list[Backend]:
    """Return the champion, and the challenger where there is one."""
    predictor = service["spec"]["predictor"]
    bundle = _bundle_of(predictor.get("containers"))
    reported = ((service.get("status") or {}).get("components") or {}).get("predictor") or {}
    traffic = [entry for entry in reported.get("traffic") or [] if entry.get("percent") is not None]
    if not traffic:
        return [Backend("champion", 100, "", bundle, ready)]

    found = []
    split = len(traffic) > 1
    for entry in sorted(traffic, key=lambda entry: bool(entry.get("latestRevision"))):
        is_newer = split and bool(entry.get("latestRevision"))
        revision = str(entry.get("revisionName") or "")
        found.append(
            Backend(
                "challenger" if is_newer else "champion",
                int(entry["percent"]),
                revision,
                _bundle_of_revision(reader, revision),
                ready=True,  # only such a revision is given requests
            )
        )

    # One that does not start is given none, and stands in no split.
    created = str(reported.get("latestCreatedRevision") or "")
    if created and created not in {backend.revision for backend in found}:
        found.append(Backend("challenger", 0, created, bundle, ready=False))
    return found


def _bundle_of_revision(reader: ClusterReader, name: str) -> str:
    """Return what a revision of Knative serves; it keeps the arguments it was made with."""
    revision = if_allowed(lambda: reader.custom_object(*_KNATIVE, name), None)
    return UNKNOWN if revision is None else _bundle_of(revision["spec"].get("containers"))


def _bundle_of(containers: list[dict[str, Any]] | None) -> str:
    """Return what the server's arguments name."""
    for container in containers or []:
        args = [str(word) for word in container.get("args") or []]
        if "--follow" in args:
            return FOLLOWS
        if args and not args[0].startswith("-"):
            return args[0]
    return UNKNOWN
