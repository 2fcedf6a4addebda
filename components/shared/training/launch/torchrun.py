"""One start of a module under torchrun: its ranks are watched, and all of them end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.contracts.documents import read_object
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import TransientError
from components.shared.contracts.machine import n_usable_cores
from components.shared.training.launch.device import n_gpus
from components.shared.training.launch.failures import Failure, report_error, reported_failure
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.launch.memory import n_oom_kills
from components.shared.training.launch.variables import computation_variables

__all__ = ["HANG_SECONDS", "Machine", "launch", "report_error", "run_processes"]

# A rank that shows no sign of life for so long ends the group, or for longer where its own pauses
# are long (`Heartbeat.hung`).
HANG_SECONDS = 240.0
_HOST = "127.0.0.1"
_WITH_PARENT = ("-m", "components.shared.contracts.processes")
_POLL_SECONDS = 0.2
_END_SECONDS = 10.0
# So long the machines wait for the last of them, which may still be fetching its data.
_JOIN_SECONDS = 3600
_PROJECT_ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The place of this machine among those of one training.

    `rank`: its number, of `count`; `address` and `port`: where that of rank 0 listens; `name`: of
    this start, so that machines of another do not take part in it.
    """

    rank: int
    count: int
    address: str
    port: int
    name: str


def launch(
    module: str, job: Path, *, n_processes: int | None, hang_seconds: float = HANG_SECONDS
) -> None:
    """Run `module` under torchrun with `--config job` and `n_processes` ranks.

    None stands for one rank per visible GPU, or one on the CPU. The ranks have the environment of
    this process, with what the options in `job` need (`computation_variables`).

    A rank's own error (class and one-line message) is raised here again; a rank that was killed, or
    shows no sign of life for `hang_seconds` and five times its longest pause, is a TransientError
    that names it and its last step, and where the kernel says that memory was exhausted, a
    MemoryExhaustedError. No process outlives the call.
    """
    failure = run_processes(module, job, n_processes=n_processes, hang_seconds=hang_seconds)
    if failure is not None:
        raise failure.error


def run_processes(
    module: str,
    job: Path,
    *,
    n_processes: int | None,
    hang_seconds: float,
    machine: Machine | None = None,
) -> Failure | None:
    """As `launch`, and on one of several machines where `machine` says so; returns what failed.

    Every machine calls it with the same `n_processes`, which are those of one machine.
    """
    count = n_processes or n_gpus() or 1
    first_rank = machine.rank * count if machine is not None else 0
    heartbeat = Heartbeat(job.parent / "heartbeat", count, first_rank=first_rank)
    command = [
        sys.executable,
        *_WITH_PARENT,
        "components.shared.training.launch.agent",
        f"--nproc-per-node={count}",
    ]
    command += _rendezvous(machine)
    command += ["--log-dir", str(job.parent / "torchrun"), *_WITH_PARENT, module]
    command += ["--config", str(job)]

    kills_before = n_oom_kills()
    process = subprocess.Popen(command, env=_environment(job, count))
    try:
        while process.poll() is None:
            if hung := heartbeat.hung(hang_seconds, alone=machine is None):
                return Failure(TransientError(hung))
            time.sleep(_POLL_SECONDS)
    finally:
        _end(process, heartbeat)

    if process.returncode == 0:
        return None

    kills = n_oom_kills()
    out_of_memory = None if kills is None or kills_before is None else kills > kills_before
    return reported_failure(job.parent, process.returncode, heartbeat, out_of_memory=out_of_memory)


def _rendezvous(machine: Machine | None) -> list[str]:
    """Return torchrun's options of a static rendezvous.

    Its own one (`--standalone`, `--rdzv-backend=c10d`) unpickles what it gets from a port that
    others can write to (torch 2.13, elastic/rendezvous/dynamic_rendezvous.py); with a static one
    agents and ranks exchange JSON, numbers and addresses alone.
    """
    static = "--rdzv-backend=static"
    if machine is None:
        return [static, f"--master-addr={_HOST}", f"--master-port={_free_port()}"]
    return [
        static,
        f"--nnodes={machine.count}",
        f"--node-rank={machine.rank}",
        f"--master-addr={machine.address}",
        f"--master-port={machine.port}",
        f"--rdzv-id={machine.name}",
        f"--rdzv-conf=timeout={_JOIN_SECONDS}",
    ]


def _environment(job: Path, count: int) -> dict[str, str]:
    directory = job.parent
    cores_per_rank = max(1, n_usable_cores() // count)
    folders = [str(_PROJECT_ROOT), os.environ.get(Variable.PYTHONPATH, "")]
    return {
        **os.environ,
        **computation_variables(read_object(job, dict[str, Any])),
        Variable.OMP_NUM_THREADS: os.environ.get(Variable.OMP_NUM_THREADS) or str(cores_per_rank),
        # A thread that spins keeps the core that the thread it waits for may need: beside other
        # busy processes a step takes many times as long (docs/precision.md).
        Variable.OMP_WAIT_POLICY: os.environ.get(Variable.OMP_WAIT_POLICY) or "PASSIVE",
        Variable.PYTHONPATH: os.pathsep.join(filter(None, folders)),
        Variable.TOKENIZERS_PARALLELISM: "false",
        Variable.PARENT: str(os.getpid()),
        Variable.HEARTBEAT: str(directory / "heartbeat"),
        Variable.REPORTS: str(directory),
    }


def _end(process: "subprocess.Popen[bytes]", heartbeat: Heartbeat) -> None:
    """Kill torchrun, with which its ranks end (`contracts.processes`), and wait for their end."""
    if process.poll() is None:
        process.kill()
        # Without the kernel's help, a rank that hangs does not notice that its parent ended.
        for pid in heartbeat.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    process.wait()
    ends = time.monotonic() + _END_SECONDS
    while any(map(_exists, heartbeat.pids())) and time.monotonic() < ends:
        time.sleep(0.02)


def _exists(pid: int) -> bool:
    """Whether a process of this user has the number; signal 0 only asks."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as probe:
        return int(probe.getsockname()[1])
