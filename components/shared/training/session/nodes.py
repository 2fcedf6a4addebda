"""A training on several nodes, as its step sees it.

The step's input artifacts are on its own pod only. It uploads them once, beside the checkpoints,
starts a TrainJob whose nodes fetch them (`session.node`), and fetches what node 0 leaves in its
work directory. With the credentials of checkpoints nodes reach all that they need, and no other
object. What belongs to a start is below a name of its own, and its digest is in the TrainJob: an
object that was changed meanwhile is refused.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import MANIFEST, parse_manifest, read_manifest
from components.shared.contracts.documents import as_type, parse_json, read_object
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    PERMANENT_EXIT_CODE,
    ArtifactError,
    ConfigError,
    MemoryExhaustedError,
    PermanentError,
    StreetVisionError,
    TransientError,
    error_class,
)
from components.shared.storage import Store, split_uri
from components.shared.storage.artifacts import download_artifact, upload_artifact
from components.shared.storage.errors import ObjectNotFoundError
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.kubernetes_api import KubernetesApi
from components.shared.training.launch.train_job import Ended, Outcome, Owner, run_train_job

__all__ = ["JOB", "NODE", "RESULTS", "Nodes"]

NODE = "components.shared.training.session.node"
JOB, RESULTS = "job.json", "results"  # below the address of a start
_TERMINATED = 143  # by SIGTERM, as Kubernetes ends the other pods of a TrainJob that failed


class Nodes:
    """The nodes of one training."""

    def __init__(
        self, api: KubernetesApi, template: dict[str, Any], owner: Owner, uri: str, key: str
    ) -> None:
        """Name the training; nothing is asked of the cluster or the store yet.

        `template`: the TrainJob without name, owner and command; `uri`: s3://bucket/prefix of all
        checkpoints; `key`: of the training.
        """
        self._api, self._template, self._owner = api, template, owner
        self._store, self._key = Store.from_environment(), key
        self._bucket, prefix = split_uri(uri)
        self._prefix = f"{prefix.rstrip('/')}/nodes/{key}".lstrip("/")
        self._inputs: dict[str, dict[str, str]] = {}

    @classmethod
    def of_step(cls, key: str) -> Self | None:
        """Return the nodes that the compiled pipeline asks for, None where it asks for none."""
        text = os.environ.get(Variable.TRAIN_JOB)
        if not text:
            return None
        uri = os.environ.get(Variable.CHECKPOINT_STORE)
        if not uri:
            raise ConfigError(
                f"training on several nodes needs a store: set {Variable.CHECKPOINT_STORE}"
                "=s3://bucket/prefix in the ConfigMap of the store, or n_nodes: 1 in the profile"
            )
        template = parse_json(text.encode(), Variable.TRAIN_JOB)
        owner = Owner(os.environ[Variable.POD_NAME], os.environ[Variable.POD_UID])
        return cls(KubernetesApi.of_pod(), template, owner, uri, key)

    def launch(
        self, module: str, job: Path, *, n_processes: int | None, hang_seconds: float
    ) -> None:
        """As `torchrun.launch`, on all nodes; `n_processes` are those of each of them."""
        start = f"{self._prefix}/{uuid.uuid4().hex}"
        document = read_object(job, dict[str, Any])
        document["inputs"] = self._uploaded(document.pop("paths"))
        document |= {"n_processes": n_processes, "hang_seconds": hang_seconds}
        data = json.dumps(document, sort_keys=True).encode()
        self._store.put_if_absent(self._bucket, f"{start}/{JOB}", data)

        digest = hashlib.sha256(data).hexdigest()
        address = f"s3://{self._bucket}/{start}"
        try:
            outcome = run_train_job(
                self._api,
                self._template,
                name=f"streetvision-{self._key[:16]}",
                command=["python", "-m", NODE, module, address, digest],
                owner=self._owner,
            )
            if not outcome.succeeded:
                raise _error(outcome, job.parent)
            self._fetch(start, outcome.pods, job.parent)
        finally:
            # What stays, because the store is away, goes by the rule of the checkpoints' prefix.
            with contextlib.suppress(StreetVisionError):
                self._delete(f"{start}/")

    def discard(self) -> None:
        """Remove the inputs, and all else of this training, from the store."""
        self._delete(f"{self._prefix}/")

    def _uploaded(self, paths: dict[str, str]) -> dict[str, dict[str, str]]:
        """Return kind, digest and key of each input, which is in the store afterwards."""
        for name, path in paths.items():
            if name != "work" and name not in self._inputs:
                manifest = read_manifest(Path(path))
                key = f"{self._prefix}/inputs/{name}"
                if self._digest_of(key) != manifest.digest:
                    upload_artifact(self._store, Path(path), self._bucket, key, kind=manifest.kind)
                self._inputs[name] = {
                    "kind": manifest.kind,
                    "digest": manifest.digest,
                    "key": key,
                }
        return self._inputs

    def _digest_of(self, key: str) -> str:
        """Return the digest of what an earlier attempt uploaded; empty where there is nothing."""
        try:
            data = self._store.read(self._bucket, f"{key}/{MANIFEST}")
            return parse_manifest(data, key).digest
        except (ObjectNotFoundError, ArtifactError):
            return ""

    def _fetch(self, start: str, pods: Sequence[Ended], work: Path) -> None:
        """Put the work directory of node 0 into `work`."""
        expected = next((_document(pod).get("results") for pod in pods if pod.node == 0), None)
        fetched = work.with_name(f"{work.name}.fetched")
        manifest = download_artifact(
            self._store, self._bucket, f"{start}/{RESULTS}", fetched, kind=Kind.NODE_RESULTS
        )
        if manifest.digest != expected:
            raise ArtifactError(
                f"s3://{self._bucket}/{start}/{RESULTS}: is not what node 0 says it has written"
            )
        (fetched / MANIFEST).unlink()
        shutil.copytree(fetched, work, dirs_exist_ok=True, copy_function=shutil.move)
        shutil.rmtree(fetched)

    def _delete(self, prefix: str) -> None:
        for item in self._store.list(self._bucket, prefix):
            self._store.delete(self._bucket, item.key)


def _error(outcome: Outcome, work: Path) -> StreetVisionError:
    """Return the cause of a failure as an error to raise, with the number of its node.

    A node knows whether another may be the cause. A pod that was killed left no message; one that
    Kubernetes ended after another had failed is no cause.
    """
    reports = [(pod, _document(pod)) for pod in outcome.pods if pod.exit_code != 0]
    causes = [
        _reported(pod, report, work) for pod, report in reports if report.get("is_cause") is True
    ]
    killed = [
        _killed(pod)
        for pod, report in reports
        if not report and pod.exit_code is not None and pod.exit_code != _TERMINATED
    ]
    others = [_reported(pod, report, work) for pod, report in reports if report]
    lost = [_killed(pod) for pod, report in reports if not report and pod.reason == "Evicted"]
    return next(
        iter([*causes, *killed, *lost, *others]),
        TransientError(f"the TrainJob failed: {outcome.message or 'Kubernetes does not say why'}"),
    )


def _reported(pod: Ended, report: dict[str, Any], work: Path) -> StreetVisionError:
    named = error_class(report.get("class")) or TransientError
    size = report.get("micro_batch")
    if issubclass(named, MemoryExhaustedError) and isinstance(size, int):
        Heartbeat(work / "heartbeat", 1).record_micro_batch(0, size)
    return named(f"node {pod.node}: {report.get('message', '')}")


def _killed(pod: Ended) -> StreetVisionError:
    how = f"exit code {pod.exit_code}" if pod.exit_code is not None else "without an exit code"
    message = f"node {pod.node} ended with {how} and left no message: {pod.reason or 'no reason'}"
    if pod.reason == "OOMKilled":
        return MemoryExhaustedError(f"{message}; the container reached its limit of memory")
    if pod.exit_code == PERMANENT_EXIT_CODE:
        return PermanentError(f"{message}; see the log above")
    return TransientError(message)


def _document(pod: Ended) -> dict[str, Any]:
    """Return what a node left as its termination message; empty where that is no document."""
    try:
        return as_type(parse_json(pod.message.encode(), "node"), dict[str, Any], "node")
    except ArtifactError:
        return {}
