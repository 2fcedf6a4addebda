"""Connection to Kubeflow's API: address, credentials, mode of KFP, reasons of refusals."""

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kfp
import yaml
from kfp_server_api import ApiException
from kubernetes.config import ConfigException, list_kube_config_contexts
from urllib3.exceptions import HTTPError, MaxRetryError

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ConfigError,
    PermanentError,
    StreetVisionError,
    TransientError,
)
from components.shared.contracts.redaction import carries_credential, conceal
from pipelines.kfp_private import (
    ServiceAccountTokenVolumeCredentials,
    rest_client,
    set_namespace,
)
from pipelines.kubeflow.options import ApiAddress

AUDIENCE = (  # of a token, where KFP checks it itself (TOKEN_REVIEW_AUDIENCE)
    "pipelines.kubeflow.org"
)
PROFILE_NAMESPACE, KFP_NAMESPACE = "streetvision", "kubeflow"  # as manifests/overlays have them
TIMEOUT_SECONDS = (10, 120)  # to connect, and between two packets of an answer
_SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LONGEST_MESSAGE = 1000
# any name but kubeflow and "", for which kfp would ask the API itself, five times
_NOT_YET_KNOWN = "-"
# backend/src/apiserver/auth/authenticator_token_review.go of KFP 2.17: the reason stands between
# these words.
_TOKEN_REVIEW = re.compile(r"Error \[?(.+?)\]?: Failed to authenticate token review")
# backend/src/apiserver/resource/resource_manager.go: an access review that was answered with no.
_ACCESS_REVIEW = re.compile(
    r"User '([^']*)' is not authorized.*Namespace:([^,]*),Verb:([^,]*),.*Resource:([^,]*),"
)


@dataclass(frozen=True)
class Mode:
    """How KFP is installed, and where runs are.

    host: address of the API. multi_user: whether KFP knows several users, each with namespaces of
    their own. namespace: that of the runs' pods. origin: where the namespace was found, in words.
    """

    host: str
    multi_user: bool
    namespace: str
    origin: str

    @property
    def api_namespace(self) -> str | None:
        """The namespace to name in requests: None for one user, whose KFP refuses or ignores it."""
        return self.namespace if self.multi_user else None


def find_mode(api: ApiAddress) -> Mode:
    """Ask the API for its mode, and return the namespace of the runs that all verbs share.

    The namespace is that of --namespace, else of kubeconfig's current context ("default" counts as
    none), else, where KFP has several users, of the pod that asks, else what the overlays use:
    kubeflow for one user, streetvision for several. Raises ConfigError where no host is known, and
    errors that name the host and what to try where the API does not answer.
    """
    return Connection.resolve(api.host, api.namespace, api.ca_file).open()[1]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the API is and who asks.

    Without token and cookie: nobody, or the pod's service account.

    namespace: the one that was asked for, None for the one that `find_mode` describes.
    """

    host: str
    namespace: str | None = None
    token: str | None = field(default=None, repr=False)
    cookie: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @classmethod
    def resolve(
        cls,
        host: str | None,
        namespace: str | None,
        ca_file: str | None,
        environment: Mapping[str, str] | None = None,
    ) -> "Connection":
        """Read options first, then the environment. Raises ConfigError where no host is known."""
        known = os.environ if environment is None else environment
        host = host or known.get(Variable.KFP_ENDPOINT) or ""
        if not host and Variable.KUBERNETES_SERVICE_HOST in known:
            host = f"http://ml-pipeline.{KFP_NAMESPACE}.svc.cluster.local:8888"

        # User information: also before a host that lacks its scheme.
        if carries_credential(host) or "@" in host.partition("://")[2 if "://" in host else 0]:
            raise ConfigError(
                "the host of Kubeflow's API carries a credential; take it out of --host or"
                f" {Variable.KFP_ENDPOINT}, and set {Variable.KFP_TOKEN} or {Variable.KFP_COOKIE}"
            )

        if not host.startswith(("http://", "https://")):
            shown = (
                f"host={host!r} has no http:// or https://"
                if host
                else "the host of Kubeflow's API is not set"
            )
            raise ConfigError(
                f"{shown}; add --host URL or set {Variable.KFP_ENDPOINT}, for example http://localhost:8080/pipeline"
            )

        if ca_file and not Path(ca_file).is_file():
            raise ConfigError(f"--ca-file {ca_file!r} does not exist; give a PEM file")

        return cls(
            host=host.rstrip("/"),
            namespace=namespace or None,
            token=_credential(known, Variable.KFP_TOKEN),
            cookie=_credential(known, Variable.KFP_COOKIE),
            ca_file=ca_file,
        )

    def open(self) -> tuple[kfp.Client, Mode]:
        """Return a client that has seen the API answer, and KFP's mode.

        Raises errors that name the host and what to try.
        """
        account = None
        if not self.token and not self.cookie and _SERVICE_ACCOUNT_TOKEN.is_file():
            account = ServiceAccountTokenVolumeCredentials(str(_SERVICE_ACCOUNT_TOKEN))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # tells that KFP 1 is not supported
            client = kfp.Client(
                host=self.host,
                namespace=_NOT_YET_KNOWN,
                existing_token=self.token,
                cookies=self.cookie,
                ssl_ca_cert=self.ca_file,
                credentials=account,
            )

        health = self.get(client, "/apis/v2beta1/healthz", "look whether the API is there")
        multi_user = bool(health.get("multi_user"))
        namespace, origin = self.find_namespace(multi_user=multi_user)
        mode = Mode(self.host, multi_user, namespace, origin)
        set_namespace(client, mode.api_namespace or "")

        return client, mode

    def find_namespace(self, *, multi_user: bool) -> tuple[str, str]:
        """Return the namespace of the runs, and in words where it was found."""
        if self.namespace:
            return self.namespace, "--namespace"
        context = kube_context()
        if context and context[1] not in ("", "default"):
            return context[1], f"kubeconfig's context {context[0]!r}"
        if context is None and multi_user and _POD_NAMESPACE.is_file():
            return _POD_NAMESPACE.read_text(encoding="utf-8").strip(), "this pod's namespace"
        return (PROFILE_NAMESPACE if multi_user else KFP_NAMESPACE), "the default"

    def get(self, client: kfp.Client, path: str, what: str, **query: Any) -> dict[str, Any]:
        """Return the JSON document at a path of the API.

        Query parameters that are None are left out.

        The documents are read as they are: kfp's models refuse states that a newer KFP may add.
        """
        wanted = [(name, value) for name, value in query.items() if value is not None]
        with self.asking(what):
            response = rest_client(client).call_api(
                path,
                "GET",
                query_params=wanted,
                auth_settings=["Bearer"],
                _preload_content=False,
                _request_timeout=TIMEOUT_SECONDS,
            )
            data = response.data

        try:
            document = json.loads(data)
        except ValueError:
            document = None

        if not isinstance(document, dict):
            raise PermanentError(
                f"{self.host} answers with a page instead of the API: a login is asked for, or the"
                f" path is wrong; set {Variable.KFP_TOKEN} or {Variable.KFP_COOKIE}, or append"
                " /pipeline to the host"
            )

        return document

    @contextlib.contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turn the client's failures into errors with host, request and advice.

        Never with a credential.
        """
        try:
            yield
        except ApiException as error:
            raise self._refused(what, error) from None
        except MaxRetryError as error:
            reason = str(error.reason).rpartition(": ")[2] or type(error.reason).__name__
            raise TransientError(
                f"{self.host} cannot be reached to {what} ({reason}); is the address right and the"
                " port forwarded?"
            ) from None
        except (HTTPError, OSError) as error:
            raise TransientError(
                f"{self.host} closed the connection during: {what} ({type(error).__name__})"
            ) from None

    def _refused(self, what: str, error: ApiException) -> StreetVisionError:
        kind = TransientError if error.status >= 500 else PermanentError
        said = " ".join(
            part for part in (f"HTTP {error.status}", _cause(error.status, error.body)) if part
        )
        advice = self._advice(error.status)
        return kind(f"{self.host} refused to {what}: {said}" + (f"; {advice}" if advice else ""))

    def _advice(self, status: int) -> str:
        if status in (401, 403):
            namespace, origin = self.find_namespace(multi_user=True)
            command = (
                f"export {Variable.KFP_TOKEN}=$(kubectl create token default-editor -n {namespace} "
                f"--audience {AUDIENCE} --duration 12h)"
            )
            if status == 401:
                return f"make a token: {command}, or set {Variable.KFP_COOKIE} to a new session"

            return (
                f"make a token of the namespace {namespace!r} ({origin}): {command}, or give"
                " another --namespace"
            )

        if status == 404:
            return (
                "it does not exist there; check the name or id, and that this is the API of KFP 2"
            )
        if status == 409:
            return (
                "the name is taken; if another upload is under way run this again, else choose"
                " another name"
            )
        return "see the API server's log" if status >= 500 else ""


def _credential(environment: Mapping[str, str], name: str) -> str | None:
    """Return a credential, hidden from now on; raise ConfigError where no header can carry it."""
    value = environment.get(name, "").strip()
    conceal(value)
    if value and not value.isprintable():
        raise ConfigError(
            f"{name} has a line break or a control character, which no header can carry; set it"
            " again, in one line"
        )
    if not value.isascii():
        raise ConfigError(f"{name} has a character that is not ASCII; set it again")
    return value or None


def kube_context() -> tuple[str, str] | None:
    """Name and namespace of kubeconfig's current context; None where there is no kubeconfig."""
    file = os.environ.get(Variable.KUBECONFIG) or str(Path("~/.kube/config").expanduser())
    try:
        _, current = list_kube_config_contexts(config_file=file)
    except (ConfigException, OSError, TypeError, yaml.YAMLError):
        return None
    return str(current.get("name", "")), str((current.get("context") or {}).get("namespace") or "")


def _cause(status: int, body: Any) -> str:
    """Return the reason of a refusal from KFP's answer (compare tests/recordings).

    `message` is a chain from the outermost failure inwards. For 401 its end has the reason, for 403
    and others `details[0].message` has it.
    """
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    message, detail = text, ""
    with contextlib.suppress(ValueError, AttributeError, LookupError, TypeError):
        document = json.loads(text)
        message = str(document.get("message") or document.get("error") or text)
        detail = str(document["details"][0].get("message") or "")

    if status == 401:
        review = _TOKEN_REVIEW.search(message)
        return _end(review[1] if review else message.rstrip(".]").rpartition(": ")[2])

    if status == 403 and (access := _ACCESS_REVIEW.search(detail)):
        user, namespace, verb, resource = access.groups()
        return f"user {user!r} may not {verb} {resource} in namespace {namespace!r}"

    return _end(detail or message)


def _end(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else "... " + text[-_LONGEST_MESSAGE:]
