"""How does a step start its training processes, and how does it learn why they failed?"""

import json
import os
import subprocess
import sys
from pathlib import Path

from components.shared import errors
from components.shared.artifacts import write_json
from components.shared.errors import StreetVisionError, TransientError, one_line

_ERROR_FILE = "error-rank{rank}.json"
_PROJECT_ROOT = Path(__file__).resolve().parents[3]


def launch(module: str, job: Path, *, n_processes: int) -> None:
    """Run `module` under torchrun with `--config job` and `n_processes` ranks (0: one per visible GPU, else one).

    A rank's own error (class and one-line message) is raised here again; a rank that died without one is a
    TransientError. torchrun ends the other ranks when one fails.
    """
    count = n_processes or _n_gpus() or 1
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command += [f"--nproc-per-node={count}", "-m", module, "--config", str(job)]
    environment = os.environ | {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // count)),
        "PYTHONPATH": os.pathsep.join([str(_PROJECT_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "TOKENIZERS_PARALLELISM": "false",
    }
    finished = subprocess.run(command, env=environment, check=False)
    if finished.returncode != 0:
        raise _reported_error(job.parent, finished.returncode)


def report_error(directory: Path, rank: int, error: BaseException) -> None:
    """Called by a failing rank: leave the error's class and message for `launch`."""
    write_json(directory / _ERROR_FILE.format(rank=rank), {"class": type(error).__name__, "message": one_line(error)})


def _reported_error(directory: Path, exit_code: int) -> StreetVisionError:
    # The first failure is the cause; the other ranks fail after it, for want of their peer.
    for file in sorted(directory.glob(_ERROR_FILE.format(rank="*")), key=lambda file: file.stat().st_mtime_ns):
        document = json.loads(file.read_text(encoding="utf-8"))
        kind = getattr(errors, document["class"], None)
        if isinstance(kind, type) and issubclass(kind, StreetVisionError):
            return kind(document["message"])
        return TransientError(f"{file.stem.removeprefix('error-')}: {document['class']}: {document['message']}")
    return TransientError(f"training processes ended with exit code {exit_code} and left no message; see the log above")


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()
