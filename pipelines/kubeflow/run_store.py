"""The object store of a run: KFP's pipeline root and the credentials to read below it.

Root and credentials are found as the run's own pods find them, so that nothing has to be given
where kubectl reaches the cluster. Sources: KFP 2.17.0, backend/src/v2/driver/root_dag.go (the run's
own root wins over the launcher's), backend/src/v2/config/env.go (default of the launcher), and
pipelines-profile-controller/sync.py (of a profile).
"""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.shared.contracts.environment import S3_VARIABLES, Variable
from components.shared.contracts.errors import ConfigError
from components.shared.storage import Store, StoreSettings, split_uri
from pipelines.kubeflow.connection import Mode
from pipelines.kubeflow.launcher import CONFIG_MAP, KFP_SECRET, launcher_store
from pipelines.kubeflow.options import StoreOptions
from pipelines.kubeflow.reader import ClusterReader
from pipelines.resources import OWN_STORE_SECRETS, STORE_CONFIG, TEAM_SECRET

_CONNECT_SECONDS = 3.0
_KEYS = ("accesskey", "secretkey")
_ROOT = re.compile(r"(?:s3|minio)://([^/?]+)/?([^?]*)(?:\?.*)?")


@dataclass(frozen=True)
class Root:
    """A pipeline root, s3:// or minio://, and in words where it was found."""

    uri: str
    origin: str


@dataclass(frozen=True)
class RunStore:
    """An object store, and where in it a root is. prefix: "" or without a slash at its end."""

    store: Store
    bucket: str
    prefix: str
    root: Root

    def folder(self, *names: str) -> str:
        """Return the key prefix of a folder below the root, with a slash at its end."""
        return "/".join([*([self.prefix] if self.prefix else []), *names]) + "/"


def open_store(
    given: StoreOptions,
    mode: Mode | None,
    reader: ClusterReader | None,
    run_root: str = "",
    deadline_seconds: float = 10,
) -> RunStore:
    """Open the store of the runs; nothing is asked of it yet.

    mode, reader: None where KFP's API or Kubernetes cannot be asked. run_root: the root that was
    given with a run. Credentials are those of STREETVISION_S3_*, else those of the Secret that the
    launcher's configuration names for the root; where a store of the pipeline's own has a user for
    people, they are that user's. Raises ConfigError that says what to set.
    """
    launcher = _config_map(reader, CONFIG_MAP)
    store_config = _config_map(reader, STORE_CONFIG)
    root = find_root(given.root, run_root, mode, launcher, store_config)
    bucket, prefix = split_root(root.uri)

    try:
        if has_credentials(os.environ):
            values = {name: os.environ[name] for name in S3_VARIABLES if name in os.environ}
        else:
            values = _from_cluster(reader, root, launcher, store_config)
    except ApiException as error:
        raise ConfigError(
            f"object store: Kubernetes refused to show where it is (HTTP {error.status}"
            f" {error.reason}); set {Variable.S3_ENDPOINT}, {Variable.S3_ACCESS_KEY} and"
            f" {Variable.S3_SECRET_KEY}"
        ) from error
    except HTTPError as error:
        raise ConfigError(
            f"object store: the cluster did not answer ({type(error).__name__})"
        ) from error

    if given.store_endpoint:
        values[Variable.S3_ENDPOINT] = given.store_endpoint
    store = Store(StoreSettings.from_environment(values), deadline_seconds=deadline_seconds)

    return RunStore(store, bucket, prefix, root)


def has_credentials(environment: Mapping[str, str]) -> bool:
    """Whether STREETVISION_S3_* has credentials, which then are used."""
    return any(environment.get(name) for name in (Variable.S3_ACCESS_KEY, Variable.S3_SECRET_DIR))


def require_reachable(runs: RunStore) -> None:
    """Raise ConfigError if nothing listens at the store's address.

    This takes less time than the store's own deadline.
    """
    address = urlsplit(f"//{runs.store.endpoint}")
    try:
        socket.create_connection(
            (address.hostname or "", address.port or 443), _CONNECT_SECONDS
        ).close()
    except OSError as error:
        raise ConfigError(
            f"object store: {runs.store.endpoint} cannot be reached from here"
            f" ({error.strerror or error}); forward its port and give --store-endpoint"
            " localhost:PORT"
        ) from error


def find_root(
    given: str | None,
    run_root: str,
    mode: Mode | None,
    launcher: Mapping[str, str],
    store_config: Mapping[str, str],
) -> Root:
    """Return the pipeline root and its source.

    The first of: the given one, the run's, the environment's, the launcher's, ours, KFP's default.

    launcher, store_config: data of the ConfigMaps of these purposes, empty where they are not there
    or not readable.
    """
    candidates = [
        (given or "", "--root"),
        (run_root, "the run's own"),
        (os.environ.get(Variable.PIPELINE_ROOT, ""), Variable.PIPELINE_ROOT),
        (launcher.get("defaultPipelineRoot", ""), f"ConfigMap {CONFIG_MAP}"),
        (store_config.get(Variable.PIPELINE_ROOT, ""), f"ConfigMap {STORE_CONFIG}"),
    ]
    for uri, origin in candidates:
        if uri:
            return Root(uri, origin)

    if mode is not None and mode.multi_user:
        return Root(
            f"minio://mlpipeline/private-artifacts/{mode.namespace}/v2/artifacts",
            "KFP's default of a profile",
        )

    return Root("minio://mlpipeline/v2/artifacts", "KFP's default")


def root_for_runs(given: StoreOptions, reader: ClusterReader | None) -> str:
    """Return the root that a new run is given: `--root`, the environment's, or STORE_CONFIG's.

    "": KFP's default.

    KFP's launcher has one default root for a namespace. Where the pipeline has a store of its own
    beside it, the root comes with each run.
    """
    ours = _config_map(reader, STORE_CONFIG).get(Variable.PIPELINE_ROOT, "")
    root = given.root or os.environ.get(Variable.PIPELINE_ROOT, "") or ours
    if root:
        split_root(root)
    return root


def setting_of_cluster(reader: ClusterReader | None, name: str) -> str:
    """Return a setting of STORE_CONFIG, which the steps read as a variable of this name."""
    return _config_map(reader, STORE_CONFIG).get(name, "")


def split_root(uri: str) -> tuple[str, str]:
    """Return bucket and prefix of a root; what follows a question mark is the launcher's affair.

    Raises ConfigError.
    """
    parts = _ROOT.fullmatch(uri)
    if parts is None:
        raise ConfigError(
            f"pipeline root {uri!r} must be s3://bucket/prefix or minio://bucket/prefix; give"
            " --root"
        )
    return split_uri(f"s3://{parts[1]}/{parts[2].strip('/')}")


def _config_map(reader: ClusterReader | None, name: str) -> Mapping[str, str]:
    """Data of a ConfigMap.

    Empty where it is not there or may not be read, for then there are other sources.
    """
    if reader is None:
        return {}
    try:
        found = reader.config_map(name)
    except (ApiException, HTTPError):
        return {}
    return found.data if found is not None else {}


def _from_cluster(
    reader: ClusterReader | None,
    root: Root,
    launcher: Mapping[str, str],
    store_config: Mapping[str, str],
) -> dict[str, str]:
    """Settings as the launcher resolves them.

    Those of our ConfigMap where pods take them from their environment.
    """
    if reader is None:
        raise ConfigError(
            f"object store: set {Variable.S3_ENDPOINT}, {Variable.S3_ACCESS_KEY} and"
            f" {Variable.S3_SECRET_KEY}, or {Variable.KUBECONFIG} to a cluster that shows them"
        )

    try:
        found = launcher_store({**launcher, "defaultPipelineRoot": root.uri})
    except ConfigError as error:
        raise ConfigError(f"object store: {error}") from error

    values: dict[str, str] = {
        Variable.S3_ENDPOINT: re.sub(r"^https?://", "", found.endpoint),
        Variable.S3_SECURE: "true" if found.secure else "false",
        Variable.S3_REGION: found.region,
    }
    if ca_file := os.environ.get(Variable.S3_CA_FILE):
        values[Variable.S3_CA_FILE] = ca_file  # a file of this machine, so no object tells it
    if found.secret == OWN_STORE_SECRETS["runs"]:  # whose user may read and write runs only
        return values | _credentials(reader, [TEAM_SECRET, found.secret], _KEYS)
    if found.secret:
        return values | _credentials(reader, [found.secret], (found.access_key, found.secret_key))

    values |= {name: value for name, value in store_config.items() if name in values}

    own = [TEAM_SECRET, OWN_STORE_SECRETS["runs"]]
    return values | _credentials(reader, [*own, KFP_SECRET], _KEYS)


def _credentials(
    reader: ClusterReader, secrets: list[str], keys: tuple[str, str]
) -> dict[str, str]:
    """Of the first Secret that has both keys."""
    for name in secrets:
        values = reader.secret(name) or {}
        if all(values.get(key) for key in keys):
            return {
                Variable.S3_ACCESS_KEY: values[keys[0]],
                Variable.S3_SECRET_KEY: values[keys[1]],
            }

    raise ConfigError(
        f"object store: no Secret {' or '.join(secrets)} with {keys[0]} and {keys[1]} in namespace "
        f"{reader.namespace!r}; set {Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY}"
    )
