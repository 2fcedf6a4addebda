"""Entry point of a node of a TrainJob: data from the store, torchrun, results to the store.

python -m components.shared.training.session.node MODULE s3://bucket/prefix/of/the/start SHA256

SHA256 is that of the start's job.json, which has the digests of all inputs. How the node ends is
its termination message, a JSON document that `session.nodes` reads.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.documents import as_type, parse_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ArtifactError,
    StreetVisionError,
    TransientError,
    one_line,
)
from components.shared.contracts.interrupts import SignalReceivedError, interruptible
from components.shared.contracts.listing import say
from components.shared.contracts.redaction import redact_output
from components.shared.storage import Store, split_uri
from components.shared.storage.artifacts import download_artifact, upload_artifact
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.checkpoint.remote import RemoteCheckpoints
from components.shared.training.launch.failures import Failure
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.torchrun import Machine, run_processes
from components.shared.training.session.nodes import JOB, RESULTS

_TERMINATION_LOG = "/dev/termination-log"
_LONGEST_MESSAGE = 3000  # of the 4096 bytes that Kubernetes keeps
# A node that failed for want of its peer ends so much later: Kubernetes removes the pods that still
# run when the first one has failed, and with them what they left.
_PEER_SECONDS = 15.0


def main() -> None:
    """Run this node and end the process: 0, 42 for a permanent error, 1 for another."""
    redact_output()
    module, address, digest = sys.argv[1:]
    scratch = Path(tempfile.mkdtemp(prefix="node-"))
    try:
        with interruptible():
            _leave_message(_run(module, address, digest, scratch))
    except SignalReceivedError as error:
        sys.exit(error.exit_code)
    except StreetVisionError as error:
        _fail(Failure(error), scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(module: str, address: str, digest: str, scratch: Path) -> dict[str, Any]:
    """Return the termination message of a node that succeeded."""
    store, (bucket, prefix) = Store.from_environment(), split_uri(address)
    job = _fetch(store, bucket, prefix, digest, scratch)
    environment = os.environ
    machine = Machine(
        rank=int(environment[Variable.NODE_RANK]),
        count=int(environment[Variable.NODE_COUNT]),
        address=environment[Variable.MASTER_ADDRESS],
        port=int(environment[Variable.MASTER_PORT]),
        name=prefix.rpartition("/")[2],
    )

    work = scratch / "work"
    failure = run_processes(
        module,
        work / JOB,
        n_processes=job["n_processes"],
        hang_seconds=job["hang_seconds"],
        machine=machine,
    )
    if failure is not None:
        _fail(failure, scratch)
    if machine.rank:
        return {}
    return {"results": _upload_results(store, bucket, f"{prefix}/{RESULTS}", work)}


def _fetch(store: Store, bucket: str, prefix: str, digest: str, scratch: Path) -> dict[str, Any]:
    """Fetch job, inputs and checkpoint; write job.json with their paths here, and return it."""
    where = f"s3://{bucket}/{prefix}/{JOB}"
    data = store.read(bucket, f"{prefix}/{JOB}")
    if hashlib.sha256(data).hexdigest() != digest:
        raise ArtifactError(f"{where}: is not what the step has written")
    job = as_type(parse_json(data, where), dict[str, Any], where)

    began, work = time.monotonic(), scratch / "work"
    work.mkdir()
    job["paths"], job["verified"] = {"work": str(work)}, {}
    for name, entry in job.pop("inputs").items():
        path = scratch / "inputs" / name
        path.parent.mkdir(exist_ok=True)
        found = download_artifact(store, bucket, entry["key"], path, kind=entry["kind"])
        if found.digest != entry["digest"]:
            raise ArtifactError(f"s3://{bucket}/{entry['key']}: is not the input of the step")
        job["paths"][name], job["verified"][name] = str(path), found.digest
    say(f"inputs fetched in {time.monotonic() - began:.0f} s")

    if "checkpoints" in job:
        _fetch_checkpoint(job["checkpoints"], scratch / "checkpoints")
    write_json(work / JOB, job)

    return job


def _fetch_checkpoint(entry: dict[str, Any], directory: Path) -> None:
    """Fetch the checkpoint from which all nodes go on, which the step has named."""
    directory.mkdir()
    entry["directory"] = str(directory)
    if not entry["found"]:
        return

    name = Path(entry["found"]).name
    step = checkpoint_files.step_of(name)
    found = RemoteCheckpoints.of_job(entry["remote"]).fetch(directory, newer_than=step - 1)
    if found is None or found.name != name:
        raise TransientError(
            f"the store has {found.name if found else 'no checkpoint'}, the step named {name}"
        )
    entry["found"] = str(found)


def _upload_results(store: Store, bucket: str, key: str, work: Path) -> str:
    """Store what the main rank left; returns its digest."""
    path = work.with_name(RESULTS)
    with writing(path, kind=Kind.NODE_RESULTS, step="node", config=Config()) as out:
        for entry in sorted(work.iterdir()):
            if entry.name not in (JOB, "heartbeat", "torchrun"):
                entry.replace(out / entry.name)
    return upload_artifact(store, path, bucket, key, kind=Kind.NODE_RESULTS).digest


def _fail(failure: Failure, scratch: Path) -> NoReturn:
    """Leave the cause for the step and end the process."""
    heartbeat = scratch / "work/heartbeat"
    message = one_line(failure.error)
    data = message.encode()
    if len(data) > _LONGEST_MESSAGE:
        half = _LONGEST_MESSAGE // 2
        message = (
            f"{data[:half].decode(errors='ignore')} [...] {data[-half:].decode(errors='ignore')}"
        )
    _leave_message(
        {
            "class": type(failure.error).__name__,
            "message": message,
            "is_cause": failure.is_cause,
            "micro_batch": Heartbeat(heartbeat).micro_batch() if heartbeat.is_file() else 0,
        }
    )
    say(f"error: {message}")
    if not failure.is_cause:
        time.sleep(_PEER_SECONDS)
    sys.exit(failure.error.exit_code)


def _leave_message(document: dict[str, Any]) -> None:
    file = Path(os.environ.get(Variable.TERMINATION_LOG, _TERMINATION_LOG))
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
