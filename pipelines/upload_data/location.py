"""The object store that a new run reads from and writes to, as it is reached from this machine."""

import os
import socket
from urllib.parse import urlsplit

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, TransientError
from components.shared.storage import Store, split_uri
from components.shared.storage.retry import DEADLINE_SECONDS
from pipelines.kubeflow.connection import Connection, Mode, find_mode
from pipelines.kubeflow.options import ApiAddress, StoreOptions
from pipelines.kubeflow.reader import ClusterReader
from pipelines.kubeflow.run_pods import reader_or_none
from pipelines.kubeflow.run_store import (
    RunStore,
    has_credentials,
    open_store,
    root_for_runs,
    setting_of_cluster,
)

_CONNECT_SECONDS = 3.0


def find_store(api: ApiAddress, given: StoreOptions) -> RunStore:
    """Return the store of STREETVISION_S3_*, else that of the cluster's pipeline root.

    KFP's API is asked for its mode only where its address is known. Raises ConfigError that says
    what to set, and TransientError where nothing listens.
    """
    if has_credentials(os.environ):
        return reachable_store(given, None, None)
    if api.host or Variable.KFP_ENDPOINT in os.environ:
        return store_of_runs(given, find_mode(api))
    return reachable_store(given, None, _reader_without_api(api))


def registry_of_cluster(api: ApiAddress) -> str:
    """Return the address of the registry that the cluster's steps use; empty where none says it."""
    if api.host or Variable.KFP_ENDPOINT in os.environ:
        reader = reader_or_none(find_mode(api).namespace)
    else:
        reader = _reader_without_api(api)
    return setting_of_cluster(reader, Variable.BUNDLE_REGISTRY)


def _reader_without_api(api: ApiAddress) -> ClusterReader | None:
    namespace, _ = Connection(host="", namespace=api.namespace).find_namespace(multi_user=False)
    return reader_or_none(namespace)


def store_of_runs(given: StoreOptions, mode: Mode) -> RunStore:
    """Return the store of the pipeline root of a cluster whose mode is known.

    Raises as `find_store` does.
    """
    return reachable_store(given, mode, reader_or_none(mode.namespace))


def reachable_store(
    given: StoreOptions,
    mode: Mode | None,
    reader: ClusterReader | None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> RunStore:
    """Open the store of the root that a new run is given. Raises as `find_store` does."""
    runs = open_store(given, mode, reader, root_for_runs(given, reader), deadline_seconds)
    _require_listening(runs.store)
    return runs


def split_address(address: str) -> tuple[str, str]:
    """Return bucket and prefix of s3://bucket/prefix or minio://bucket/prefix.

    Raises ConfigError, for an empty prefix too.
    """
    scheme, separator, rest = address.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("s3", "minio") or not separator or not bucket or not prefix.strip("/"):
        raise ConfigError(
            f"address={address!r} must be s3://bucket/prefix: below a bucket there are runs, too"
        )
    bucket, prefix = split_uri(f"s3://{rest}")
    return bucket, prefix.strip("/")


def _require_listening(store: Store) -> None:
    """Raise TransientError if nothing listens at the address.

    This takes less time than the store's own deadline.
    """
    address = urlsplit(f"//{store.endpoint}")
    try:
        socket.create_connection(
            (address.hostname or "", address.port or 443), _CONNECT_SECONDS
        ).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TransientError(
            f"object store {store.endpoint} cannot be reached from here ({reason}); forward its"
            " port (kubectl port-forward) and add --store-endpoint localhost:PORT"
        ) from None
