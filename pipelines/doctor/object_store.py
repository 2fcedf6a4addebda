"""Checks of the object store: root, conditional writes, what becomes of checkpoints, release."""

import os
import re
import socket
from urllib.parse import urlsplit

from components.shared.contracts.environment import Variable
from components.shared.storage import Store, StoreSettings, split_uri
from components.shared.storage.errors import ObjectNotFoundError
from pipelines.doctor.findings import Check, Passed, missing, unknown, warning
from pipelines.doctor.minio_release import minio_release
from pipelines.doctor.namespace import resolved_launcher
from pipelines.doctor.retention import Retention, retention
from pipelines.doctor.target import Target
from pipelines.kubeflow.launcher import LauncherStore, service_of
from pipelines.kubeflow.reader import ClusterReader
from pipelines.resources import STORE_CONFIG, STORE_VARIABLES, TEAM_SECRET

_CONNECT_SECONDS = 3.0
_DEADLINE_SECONDS = 10.0
_OUR_SERVICE = "streetvision-minio"  # manifests/minio
_NO_CHECKPOINTS = f"{Variable.CHECKPOINT_STORE} is not set, nothing to check"


class StoreChecks:
    """The store as KFP's launcher sees it (pipeline root), and as the steps do (checkpoints)."""

    def __init__(self, reader: ClusterReader, target: Target) -> None:
        self._reader = reader
        self._target = target
        self._away: set[str] = set()  # endpoints that were found to be out of reach
        self._retention: Retention | None = None

    def checks(self) -> dict[str, Check]:
        """Return the checks by name, in the order in which they are shown."""
        return {
            "pipeline root": self.pipeline_root,
            "checkpoints": self.checkpoints,
            "checkpoint expiry": self.checkpoint_expiry,
            "deleted checkpoints": self.deleted_checkpoints,
            "MinIO release": self.release,
        }

    def pipeline_root(self) -> Passed:
        """The bucket of KFP's artifacts exists, and the launcher's credentials can read it."""
        store = resolved_launcher(self._reader)
        where = f"{store.root} at {store.endpoint}"
        if not store.secret:
            raise unknown(
                f"{where}: pods take the credentials from their environment",
                "see the log of a first run",
            )

        settings = self._reachable(self._launcher_settings(store))
        client = Store(settings, deadline_seconds=_DEADLINE_SECONDS)
        try:
            client.read(store.bucket, f"{store.prefix}.no-such-object")
        except ObjectNotFoundError:
            return Passed(f"{where}, bucket {store.bucket} opened with Secret {store.secret}")

        return Passed(where)

    def checkpoints(self) -> Passed:
        """The store honours the conditional writes that decide between two pods of one training.

        Writes one small object below the checkpoint prefix and deletes it.
        """
        location = self._checkpoint_location()
        if location is None:
            return Passed(_NO_CHECKPOINTS)

        bucket, prefix = location
        settings = self._reachable(self._step_settings())
        Store(settings, deadline_seconds=_DEADLINE_SECONDS).require_conditional_writes(
            bucket, prefix
        )

        return Passed(
            f"s3://{bucket}/{prefix} can be written, and the store honours conditional writes"
        )

    def checkpoint_expiry(self) -> Passed:
        """Old checkpoints expire by a lifecycle rule of their prefix.

        None but our own store must have it.
        """
        where, kept = self._checkpoint_retention()
        if kept is None:
            return Passed(where)
        if kept.expires_after_days is not None:
            return Passed(f"objects below {where} expire after {kept.expires_after_days} days")

        found = f"no lifecycle rule for {where}: checkpoints of ended trainings stay"
        if self._is_ours():
            raise missing(found, self._set_up_again())

        bucket, prefix = self._checkpoint_location() or ("", "")
        return Passed(found, f"mc ilm rule add ALIAS/{bucket} --prefix {prefix} --expire-days 30")

    def deleted_checkpoints(self) -> Passed:
        """A deleted checkpoint frees its bytes, at once or by a rule for noncurrent versions."""
        where, kept = self._checkpoint_retention()
        if kept is None:
            return Passed(where)
        if not kept.keeps_versions:
            return Passed(f"{where} keeps no versions: a deleted checkpoint frees its bytes")

        bucket, prefix = self._checkpoint_location() or ("", "")
        if kept.versions_expire_after_days is None:
            found = (
                f"{where} keeps every version for ever: each deleted checkpoint stays, and training"
                " fills the store"
            )
            if self._is_ours():
                raise missing(found, self._set_up_again())
            raise warning(
                found,
                f"mc ilm rule add ALIAS/{bucket} --prefix {prefix} --noncurrent-expire-days 1"
                " --expire-delete-marker; or a bucket without versions",
            )

        days = kept.versions_expire_after_days
        text = f"deleted objects below {where} free their bytes after {days} day(s)"
        if not kept.markers_expire:
            return Passed(
                text,
                f"mc ilm rule add ALIAS/{bucket} --prefix {prefix} --expire-delete-marker, or their"
                " markers stay",
            )
        return Passed(text)

    def release(self) -> Passed:
        """A MinIO is of a release with the fixes of known vulnerabilities."""
        if self._checkpoint_location() is None:
            return Passed(_NO_CHECKPOINTS)
        return minio_release(self._reachable(self._step_settings(TEAM_SECRET)))

    def _checkpoint_retention(self) -> tuple[str, Retention | None]:
        """The prefix of the checkpoints in words, and what happens to objects there."""
        location = self._checkpoint_location()
        if location is None:
            return _NO_CHECKPOINTS, None

        bucket, prefix = location
        settings = self._reachable(self._step_settings())
        if self._retention is None:
            self._retention = retention(settings, bucket, prefix)
        return f"s3://{bucket}/{prefix}", self._retention

    def _set_up_again(self) -> str:
        """The commands that run the set-up job of our own store again."""
        endpoint = self._store_config().get(Variable.S3_ENDPOINT, "")
        namespace = self._service(endpoint).partition(":")[0].partition(".")[2]
        return (
            f"have an admin run: kubectl delete job {_OUR_SERVICE}-setup --namespace {namespace};"
            " kubectl apply -k manifests/minio"
        )

    def _store_config(self) -> dict[str, str]:
        found = self._reader.config_map(STORE_CONFIG)
        return found.data if found else {}

    def _checkpoint_location(self) -> tuple[str, str] | None:
        """Bucket and prefix, with a slash at its end, of the checkpoints."""
        uri = self._store_config().get(Variable.CHECKPOINT_STORE, "")
        if not uri:
            return None
        bucket, prefix = split_uri(uri)
        return bucket, prefix.rstrip("/") + "/" if prefix else ""

    def _step_settings(self, preferred: str = "") -> StoreSettings:
        """Settings of the steps that train, with the Secret `preferred` where it is there."""
        config, secrets = self._store_config(), self._target.profile.secrets
        name = secrets.of("checkpoints")
        if preferred and self._reader.secret(preferred) is not None:
            name = preferred

        values = {name: config[name] for name in STORE_VARIABLES if name in config}
        values |= _authority()
        values |= self._credentials(name, secrets.store_access_key, secrets.store_secret_key)
        if self._target.store_endpoint:
            values[Variable.S3_ENDPOINT] = self._target.store_endpoint
        return StoreSettings.from_environment(values)

    def _launcher_settings(self, store: LauncherStore) -> StoreSettings:
        """Settings of the root's store.

        A forwarded port stands for it where the steps use the same one.
        """
        endpoint = re.sub("^https?://", "", store.endpoint)
        of_steps = self._store_config().get(Variable.S3_ENDPOINT, "")
        forwarded = self._target.store_endpoint
        if forwarded and (not of_steps or self._service(endpoint) == self._service(of_steps)):
            endpoint = forwarded
        values: dict[str, str] = {
            Variable.S3_ENDPOINT: endpoint,
            Variable.S3_SECURE: "true" if store.secure else "false",
            Variable.S3_REGION: store.region,
        }
        values |= _authority()
        values |= self._credentials(store.secret, store.access_key, store.secret_key)

        return StoreSettings.from_environment(values)

    def _credentials(self, name: str, access_key: str, secret_key: str) -> dict[str, str]:
        values = self._reader.secret(name)
        if values is None or not values.get(access_key) or not values.get(secret_key):
            needed = f"Secret {name} with {access_key} and {secret_key}"
            # The check of the steps' Secrets has said so.
            if name in self._target.profile.secrets.of_steps():
                raise unknown(f"needs {needed}")
            raise missing(
                f"{needed} is not there", "create it, or correct the ConfigMap kfp-launcher"
            )

        return {
            Variable.S3_ACCESS_KEY: values[access_key],
            Variable.S3_SECRET_KEY: values[secret_key],
        }

    def _reachable(self, settings: StoreSettings) -> StoreSettings:
        """Return the settings where something listens there; raises CheckError otherwise, soon."""
        endpoint = settings.endpoint
        service = self._service(endpoint)
        if service in self._away:
            raise unknown(f"{endpoint} cannot be reached from here")

        parts = urlsplit(f"//{endpoint}")
        port = parts.port or (443 if settings.secure else 80)
        try:
            socket.create_connection((parts.hostname or "", port), _CONNECT_SECONDS).close()
        except OSError as error:
            self._away.add(service)
            reason = error.strerror or type(error).__name__
            if endpoint == self._target.store_endpoint:
                raise missing(
                    f"{endpoint} cannot be reached ({reason})", "is the port forwarded?"
                ) from None

            name, _, namespace = service.partition(":")[0].partition(".")
            raise unknown(
                f"{endpoint} cannot be reached from here ({reason}); pods may reach it",
                f"kubectl port-forward --namespace {namespace} service/{name} {port}, then "
                f"--store-endpoint localhost:{port}",
            ) from None

        return settings

    def _service(self, endpoint: str) -> str:
        return service_of(endpoint, self._target.namespace)

    def _is_ours(self) -> bool:
        """Whether the steps' store is the MinIO of manifests/minio."""
        endpoint = self._store_config().get(Variable.S3_ENDPOINT, "")
        return re.split("[.:]", endpoint)[0] == _OUR_SERVICE


def _authority() -> dict[str, str]:
    """The variable of the store's certificate authority: a file of this machine."""
    file = os.environ.get(Variable.S3_CA_FILE, "")
    return {Variable.S3_CA_FILE: file} if file else {}
