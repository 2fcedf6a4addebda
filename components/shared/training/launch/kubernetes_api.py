"""The few requests that a step makes of the Kubernetes API, as the service account of its pod.

Plain HTTPS with urllib3, which the object store's client brings: the image of a training needs no
further library for five requests, and the import rule that no component knows Kubernetes holds.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import urllib3

from components.shared.contracts.documents import parse_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, TransientError

__all__ = ["ApiRefusedError", "ApiUnavailableError", "KubernetesApi"]

# Where Kubernetes puts a pod's token, authorities and namespace
# (kubernetes.io/docs/tasks/run-application/access-api-from-pod).
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
_RETRIES = urllib3.Retry(
    total=4,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)
_NOT_FOUND, _CONFLICT = 404, 409


class ApiUnavailableError(TransientError):
    """The Kubernetes API did not answer, or only with errors of its own."""


class ApiRefusedError(TransientError):
    """The Kubernetes API refused a request; transient, since rights can be given meanwhile."""


class KubernetesApi:
    """The API, and the namespace of this pod."""

    def __init__(self, url: str, account: Path) -> None:
        """Name the API at `url` and the folder of a service account's token."""
        self.namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        self._url, self._account = url, account
        authorities = account / "ca.crt"
        self._pool = urllib3.PoolManager(
            ca_certs=str(authorities) if authorities.is_file() else None,
            timeout=_TIMEOUT,
            retries=_RETRIES,
        )

    @classmethod
    def of_pod(cls) -> Self:
        """Return the API of the cluster in which this process runs; raises ConfigError."""
        host = os.environ.get(Variable.KUBERNETES_SERVICE_HOST)
        port = os.environ.get(Variable.KUBERNETES_SERVICE_PORT, "443")
        if not host or not (_ACCOUNT / "token").is_file():
            raise ConfigError(
                f"{Variable.TRAIN_JOB} is set outside of a cluster, or the pod has no token of its"
                " service account; compile with a profile of n_nodes: 1"
            )
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", _ACCOUNT)

    def create(self, path: str, document: Mapping[str, Any]) -> bool:
        """Create an object below `path`; returns False where one of its name exists."""
        status, _ = self._request("POST", path, body=document)
        return status != _CONFLICT

    def read(self, path: str, **query: str) -> dict[str, Any] | None:
        """Return an object or a list of objects; None where there is none."""
        status, data = self._request("GET", path, query=query)
        if status == _NOT_FOUND:
            return None
        found: dict[str, Any] = parse_json(data, path)
        return found

    def text(self, path: str, **query: str) -> str:
        """Return a log; empty where there is none."""
        try:
            status, data = self._request("GET", path, query=query)
        except ApiRefusedError:  # 400: the container has not started yet
            return ""
        return "" if status == _NOT_FOUND else data.decode(errors="replace")

    def delete(self, path: str) -> bool:
        """Delete an object after all that it owns; returns False where there is none."""
        body = {"propagationPolicy": "Foreground"}
        status, _ = self._request("DELETE", path, body=body)
        return status != _NOT_FOUND

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> tuple[int, bytes]:
        # The token is read anew: Kubernetes replaces it long before a training ends.
        token = (self._account / "token").read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(
                method, self._url + path, fields=query, body=content, headers=headers
            )
        except urllib3.exceptions.HTTPError as error:
            raise ApiUnavailableError(
                f"Kubernetes API: {method} {path}: {type(error).__name__}"
            ) from error

        if answer.status < 300 or answer.status in (_NOT_FOUND, _CONFLICT):
            return answer.status, answer.data
        message = f"Kubernetes API: {method} {path}: HTTP {answer.status} {_reason(answer.data)}"
        if answer.status >= 500 or answer.status == 429:
            raise ApiUnavailableError(message)
        raise ApiRefusedError(message)


def _reason(data: bytes) -> str:
    """Return the message of a Status object."""
    try:
        document = json.loads(data)
    except ValueError:
        return ""
    return str(document.get("message", "")) if isinstance(document, dict) else ""
