"""Checks of Kubeflow Pipelines by its own API.

The API is reachable, its version is supported, a request is authorised, the pipeline is there.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.doctor.findings import Check, Passed, missing, unknown
from pipelines.doctor.target import Target
from pipelines.kubeflow.connection import Connection, Mode
from pipelines.kubeflow.reader import ClusterReader, if_allowed

OLDEST = (2, 17)
_WHY_OLDEST = (
    "2.16 starts scheduled runs under another service account, its launcher works at its limit of"
    " memory, and its S3 client fails with some servers"
)
_VERSION = re.compile(r"v?(\d+)\.(\d+)(\.\d+)?([-+.\w]*)")
_API_SERVER = "app=ml-pipeline"
_INSTALL_CONFIG = "pipeline-install-config"


@dataclass(frozen=True)
class KfpApi:
    """KFP's API after it has answered.

    Every method raises StreetVisionError with host, cause and advice.
    """

    connection: Connection
    client: Any
    mode: Mode
    health: Mapping[str, Any]

    @classmethod
    def open(cls, connection: Connection) -> "KfpApi":
        """Connect, and read the health check's answer."""
        client, mode = connection.open()
        health = connection.get(client, "/apis/v2beta1/healthz", "look whether the API is there")
        return cls(connection, client, mode, health)

    def list_runs(self) -> None:
        """List one run of the namespace, as these credentials."""
        self._get("/apis/v2beta1/runs", "list the runs", page_size=1)

    def has_pipeline(self, name: str) -> bool:
        """Whether a pipeline of this name was uploaded."""
        named = {"predicates": [{"operation": "EQUALS", "key": "name", "string_value": name}]}
        answer = self._get(
            "/apis/v2beta1/pipelines", f"look for pipeline {name!r}", filter=json.dumps(named)
        )
        return any(
            name in (found.get("display_name"), found.get("name"))
            for found in answer.get("pipelines") or []
        )

    def _get(self, path: str, what: str, **query: Any) -> dict[str, Any]:
        return self.connection.get(
            self.client, path, what, namespace=self.mode.api_namespace, **query
        )


def kfp_checks(
    api: KfpApi, reader: ClusterReader | None, target: Target, pipeline: str
) -> dict[str, Check]:
    """Return the checks by name, in the order in which they are shown.

    `pipeline` is the name in Kubeflow.
    """
    return {
        "KFP version": lambda: version(api.health, reader, target),
        "KFP credentials": lambda: credentials(api),
        "pipeline": lambda: uploaded(api, pipeline),
    }


def reachable(api: KfpApi) -> Passed:
    """The API answers, and says in which mode it is."""
    mode = api.mode
    runs = f"runs are in namespace {mode.namespace} ({mode.origin})"
    return Passed(f"{mode.host}, {'multi-user' if mode.multi_user else 'single-user'}, {runs}")


def version(health: Mapping[str, Any], reader: ClusterReader | None, target: Target) -> Passed:
    """KFP is new enough.

    The API tells its version where it was built by KFP's release, else Kubernetes may.
    """
    candidates = [(str(health.get("tag_name", "")), "the API says so")]
    if reader is not None:
        candidates += _from_kubernetes(reader, target.kfp_namespace)

    for text, source in candidates:
        found = _VERSION.fullmatch(text)
        if found is None:
            continue

        oldest = ".".join(map(str, OLDEST))
        if (int(found[1]), int(found[2])) < OLDEST:
            raise missing(
                f"{text} ({source}) is older than {oldest}: {_WHY_OLDEST}",
                f"upgrade KFP to {oldest} or later",
            )

        return Passed(f"{text} ({source})")

    look = (
        f"kubectl get pods --namespace {target.kfp_namespace} --selector {_API_SERVER} -o"
        " jsonpath={..image}"
    )
    raise unknown(
        "the API does not tell its version, and Kubernetes does not show it either",
        f"it must be {'.'.join(map(str, OLDEST))} or later: {look}",
    )


def credentials(api: KfpApi) -> Passed:
    """An authorised request: to list runs of the namespace."""
    api.list_runs()
    return Passed("accepted" if api.mode.multi_user else "none needed in single-user mode")


def uploaded(api: KfpApi, pipeline: str) -> Passed:
    """Whether the pipeline is there already.

    Nothing is missing where it is not, since `submit` uploads it.
    """
    if api.has_pipeline(pipeline):
        return Passed(f"{pipeline} is uploaded")
    return Passed(f"{pipeline} is not uploaded yet; submit and upload do it")


def _from_kubernetes(reader: ClusterReader, namespace: str) -> list[tuple[str, str]]:
    """Return the versions that the API server's image tag and KFP's manifests name.

    Empty where these credentials may not look at them.
    """
    tags = []
    for pod in if_allowed(lambda: reader.pods(_API_SERVER, namespace), []):
        for container in pod.spec.containers:
            tag = container.image.partition("@")[0].rpartition("/")[2].partition(":")[2]
            tags.append((tag, f"image {container.image}"))

    config = if_allowed(lambda: reader.config_map(_INSTALL_CONFIG, namespace), None)

    return [
        *tags,
        (config.data.get("appVersion", "") if config else "", f"{_INSTALL_CONFIG} of {namespace}"),
    ]
