"""How is Kubeflow's API reached, as whom, and what does a failure mean?"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError, MaxRetryError

from components.shared.errors import ConfigError, PermanentError, StreetVisionError, TransientError

HOST, TOKEN, COOKIE = "KF_PIPELINES_ENDPOINT", "STREETVISION_KFP_TOKEN", "STREETVISION_KFP_COOKIE"
_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_FIXES = {
    401: f"the token or cookie is missing, wrong or expired; set {TOKEN} or {COOKIE}",
    403: "these credentials may not do it in this namespace; ask for a contributor's role, or check --namespace",
    404: "it does not exist there; check the name or id, and that this is the API of KFP 2",
    409: "the name is taken; if another upload is under way run this again, else choose another name",
}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the API is and who asks. Without token and cookie: nobody, or the pod's service account."""

    host: str
    namespace: str
    token: str | None = field(default=None, repr=False)
    cookie: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @classmethod
    def resolve(
        cls, host: str | None, namespace: str, ca_file: str | None, environment: Mapping[str, str] | None = None
    ) -> "Connection":
        """Options first, then the environment. Raises ConfigError where no host is known."""
        known = os.environ if environment is None else environment
        host = host or known.get(HOST) or ""
        if not host and "KUBERNETES_SERVICE_HOST" in known:
            host = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
        if not host.startswith(("http://", "https://")):
            shown = f"host={host!r} has no http:// or https://" if host else "the host of Kubeflow's API is not set"
            raise ConfigError(f"{shown}; add --host URL or set {HOST}, for example http://localhost:8080/pipeline")
        if ca_file and not Path(ca_file).is_file():
            raise ConfigError(f"--ca-file {ca_file!r} does not exist; give a PEM file")
        return cls(
            host=host.rstrip("/"),
            namespace=namespace,
            token=known.get(TOKEN) or None,
            cookie=known.get(COOKIE) or None,
            ca_file=ca_file,
        )

    def client(self) -> tuple[kfp.Client, str | None]:
        """A client that has seen the API answer, and the namespace to name in requests: None where KFP has one user.

        Raises errors that name the host and what to try.
        """
        account = None
        if not self.token and not self.cookie and _SERVICE_ACCOUNT_TOKEN.is_file():
            account = ServiceAccountTokenVolumeCredentials(str(_SERVICE_ACCOUNT_TOKEN))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # tells that KFP 1 is not supported
            client = kfp.Client(
                host=self.host,
                namespace=self.namespace,
                existing_token=self.token,
                cookies=self.cookie,
                ssl_ca_cert=self.ca_file,
                credentials=account,
            )
        with self.asking("look whether the API is there"):
            health = _health(client)
        if health is None:
            raise PermanentError(
                f"{self.host} answers with a page instead of the API: a login is asked for, or the path is wrong; "
                f"set {TOKEN} or {COOKIE}, or append /pipeline to the host"
            )
        namespace = self.namespace if health.get("multi_user") else ""
        client._context_setting = {"namespace": namespace}  # else kfp takes the one that was last used on this machine
        return client, namespace or None

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turn the client's failures into errors with host, request and advice; never with a credential."""
        try:
            yield
        except ApiException as error:
            raise self._refused(what, error) from None
        except MaxRetryError as error:
            reason = str(error.reason).rpartition(": ")[2] or type(error.reason).__name__
            raise TransientError(
                f"{self.host} cannot be reached to {what} ({reason}); is the address right and the port forwarded?"
            ) from None
        except (HTTPError, OSError) as error:
            raise TransientError(f"{self.host} broke off when asked to {what} ({type(error).__name__})") from None

    def _refused(self, what: str, error: ApiException) -> StreetVisionError:
        kind = TransientError if error.status >= 500 else PermanentError
        fix = _FIXES.get(error.status, "see the API server's log" if error.status >= 500 else "")
        said = " ".join(part for part in (f"HTTP {error.status}", _message(error.body)) if part)
        return kind(f"{self.host} refused to {what}: {said}" + (f"; {fix}" if fix else ""))


def _health(client: kfp.Client) -> dict[str, Any] | None:
    """The API's answer to a health check; None where something else answers."""
    api = client._healthz_api.api_client
    response = api.call_api("/apis/v2beta1/healthz", "GET", auth_settings=["Bearer"], _preload_content=False)
    try:
        document = json.loads(response.data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _message(body: Any) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    with contextlib.suppress(ValueError, AttributeError):
        document = json.loads(text)
        text = str(document.get("message") or document.get("error") or text)
    return " ".join(text.split())[:300]
