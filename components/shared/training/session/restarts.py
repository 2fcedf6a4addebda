"""Runs of a module under torchrun, started again in the pod after a transient failure.

An orchestrator retries lost pods only (KFP 2.17 sets Argo's retryPolicy OnError): a process that
dies is nobody's but the step's. docs/failures.md has the table.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from time import sleep
from typing import Any

from components.shared.contracts.artifacts import Manifest, write_json
from components.shared.contracts.errors import (
    MemoryExhaustedError,
    NotDurableError,
    OvertakenError,
    TransientError,
    one_line,
)
from components.shared.contracts.listing import say
from components.shared.contracts.options import TorchrunConfig
from components.shared.training.checkpoint import files as checkpoint_files
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.torchrun import HANG_SECONDS, launch
from components.shared.training.session.nodes import Nodes

__all__ = ["run_module"]

# Waits before the first restart, twice as long before each further one: what broke (a GPU, a peer)
# may need a moment.
_FIRST_WAIT_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 60.0


def run_module(
    module: str,
    config: TorchrunConfig,
    inputs: Mapping[str, Path | str],
    work: Path,
    find_checkpoint: Callable[[], dict[str, Any]] | None = None,
    verified: Mapping[str, Manifest] | None = None,
    remember_micro_batch: Callable[[int], None] | None = None,
    nodes: Nodes | None = None,
) -> None:
    """Run `module` under torchrun until it succeeds, with at most `max_restarts` restarts.

    Its processes are those of this pod, or of `nodes`.

    Every start finds the directory `work` empty but for job.json, which holds the configuration,
    the paths of `inputs` and of `work`, the digests of `verified`, the manifests of those inputs
    whose files the ranks need not hash again (`trusting`), and as "checkpoints" what
    `find_checkpoint` returns, asked anew each time. After a process ran out of memory the next
    micro-batch is half of the last, which `remember_micro_batch` keeps for later attempts: what it
    was given comes back from `find_checkpoint` as "micro_batch_limit". Permanent errors are raised
    at once, and so are those that another start would only meet again; the last transient one says
    how many restarts there were.
    """
    n_restarts = 0
    checkpoint = find_checkpoint() if find_checkpoint is not None else None
    micro_batch_limit = checkpoint.get("micro_batch_limit", 0) if checkpoint is not None else 0
    while True:
        job = _write_job(work, config, inputs, verified or {}, checkpoint, micro_batch_limit)
        try:
            start = launch if nodes is None else nodes.launch
            start(module, job, n_processes=config.n_processes, hang_seconds=HANG_SECONDS)
            return
        except (OvertakenError, NotDurableError):
            raise
        except TransientError as error:
            smaller = _smaller_micro_batch(error, work) if checkpoint is not None else 0
            if smaller and remember_micro_batch is not None:
                remember_micro_batch(smaller)
            if n_restarts >= config.max_restarts:
                raise _with_count(error, n_restarts) from None
            failure = error

        n_restarts += 1
        micro_batch_limit = smaller or micro_batch_limit
        checkpoint = find_checkpoint() if find_checkpoint is not None else None
        wait = min(_FIRST_WAIT_SECONDS * 2 ** (n_restarts - 1), _LONGEST_WAIT_SECONDS)
        change = f", with micro-batches of at most {smaller} per process" if smaller else ""
        say(
            f"{one_line(failure)}; restart {n_restarts} of {config.max_restarts} in {wait:g} s, "
            f"{_origin(checkpoint)}{change}"
        )
        sleep(wait)


def _smaller_micro_batch(failure: TransientError, work: Path) -> int:
    """Return the samples that a process may take at a time after it ran out of memory.

    0: as many as before.
    """
    size = (
        Heartbeat(work / "heartbeat").micro_batch()
        if isinstance(failure, MemoryExhaustedError)
        else 0
    )
    return (size + 1) // 2 if size > 1 else 0


def _write_job(
    work: Path,
    config: TorchrunConfig,
    inputs: Mapping[str, Path | str],
    verified: Mapping[str, Manifest],
    checkpoint: dict[str, Any] | None,
    micro_batch_limit: int,
) -> Path:
    """Empty `work` and write job.json, which is all that the processes get."""
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()

    paths = {name: str(path) for name, path in (*inputs.items(), ("work", work))}
    digests = {name: manifest.digest for name, manifest in verified.items()}
    job: dict[str, Any] = {"config": config.to_json(), "paths": paths, "verified": digests}
    if checkpoint is not None:
        job["checkpoints"] = checkpoint | {"micro_batch_limit": micro_batch_limit}
    write_json(work / "job.json", job)

    return work / "job.json"


def _origin(checkpoint: dict[str, Any] | None) -> str:
    """Where the next start goes on, in words."""
    if checkpoint is None:
        return "from the beginning"
    if not checkpoint["found"]:
        return "from the beginning: there is no checkpoint yet"
    return f"from the checkpoint of step {checkpoint_files.step_of(Path(checkpoint['found']).name)}"


def _with_count(error: TransientError, n_restarts: int) -> TransientError:
    if n_restarts == 0:
        return error
    times = "1 restart" if n_restarts == 1 else f"{n_restarts} restarts"
    return type(error)(
        f"{one_line(error)}; the step gave up after {times} (max_restarts={n_restarts})"
    )
