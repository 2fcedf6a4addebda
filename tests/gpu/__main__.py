"""`python -m tests.gpu`: checks of the GPU path, then its speed, in a few minutes.

Without a GPU it says what it skips; `--rehearse` runs all that a CPU can run on a small workload.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tests.gpu import timings
from tests.gpu.checks import CHECKS, missing, n_gpus_needed
from tests.gpu.workload import Workload

_PACKAGES = ("torch", "transformers", "peft")
# results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090-dynamo.csv of
# huggingface/pytorch-image-models at 7479d45; patches of 16 pixels.
_TIMM = (
    "timm's published inference, not run here (RTX 4090, torch 2.4, AMP, compiled, batch 256,"
    " 224 pixels): ViT-S 9,666, ViT-B 3,346, ViT-L 1,042 images/s"
)


class Log:
    """Results: a line of JSON each on stdout, and all of them in a folder."""

    def __init__(self, folder: Path | None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.folder, self._began = folder, time.monotonic()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._began

    def add(self, name: str, state: str, **found: Any) -> None:
        """Note one result: `passed`, `failed`, `measured` or `skipped`."""
        row = {"name": name, "state": state, "at_s": round(self.seconds(), 1)} | found
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        if self.folder is not None:  # after each: the time may end
            lines = "".join(f"{json.dumps(row)}\n" for row in self.rows)
            (self.folder / "gpu.jsonl").write_text(lines, encoding="utf-8")
            (self.folder / "gpu.md").write_text(self.table(), encoding="utf-8")

    def table(self) -> str:
        """Return the measured rows as a Markdown table."""
        measured = [row for row in self.rows if row["state"] == "measured"]
        columns = list(dict.fromkeys(name for row in measured for name in row["values"]))
        lines = [["measurement", *columns], ["---"] * (1 + len(columns))]
        for row in measured:
            cells = (row["values"].get(column) for column in columns)
            lines.append([row["name"], *("" if c is None else f"{c:.4g}" for c in cells)])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    @property
    def failed(self) -> list[str]:
        """Names of what failed."""
        return [row["name"] for row in self.rows if row["state"] == "failed"]


def run(work: Workload, log: Log, *, seconds: float, n_gpus: int) -> None:
    """Run the checks, and measure while there is time; one failure leaves the others their turn."""
    for check in CHECKS:
        if reason := missing(check, n_gpus):
            log.add(check.__name__, "skipped", reason=reason)
        elif log.seconds() > seconds:
            log.add(check.__name__, "skipped", reason="no time left")
        else:
            _attempt(log, check.__name__, "passed", lambda check=check: check(work))

    for name, measure in timings.cases(work):
        if log.seconds() > seconds:
            log.add(name, "skipped", reason="no time left")
        else:
            _attempt(log, name, "measured", measure)


def _attempt(log: Log, name: str, state: str, attempt: Callable[[], dict[str, Any]]) -> None:
    began = time.monotonic()
    try:
        values = attempt()
    except Exception as error:
        where = traceback.format_exc()[-800:]
        log.add(name, "failed", error=f"{type(error).__name__}: {error}"[:400], where=where)
        return
    log.add(name, state, values=values, took_s=round(time.monotonic() - began, 1))


def main() -> None:
    """Run what the machine can run; the exit code is 1 if a check or a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with a small workload")
    parser.add_argument("--seconds", type=float, default=420, help="begin nothing after this time")
    parser.add_argument("--out", type=Path, help="folder for gpu.jsonl and gpu.md")
    parsed = parser.parse_args()
    n_gpus = 0 if parsed.rehearse else torch.cuda.device_count()
    if not n_gpus and not parsed.rehearse:
        _say_what_is_skipped()
        return

    log = Log(parsed.out)
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    card = torch.cuda.get_device_name(0) if n_gpus else "none"
    log.add("machine", "passed", gpu=card, n_gpus=n_gpus, cores=os.cpu_count(), versions=versions)
    device = torch.device("cuda", 0) if n_gpus else torch.device("cpu")
    with TemporaryDirectory() as folder:
        work = Workload(Path(folder), device, small=parsed.rehearse)
        run(work, log, seconds=parsed.seconds, n_gpus=n_gpus)

    print(f"{log.table()}\n{_TIMM}")
    print(f"failed: {', '.join(log.failed)}" if log.failed else "all passed")
    sys.exit(bool(log.failed))


def _say_what_is_skipped() -> None:
    print("no GPU: skipped, nothing was checked or measured. With one, `make test-gpu` runs:")
    for check in CHECKS:
        words = check.__name__.replace("_", " ")
        print(
            f"  check {words}"
            + f" (needs {n_gpus_needed(check)} GPUs)" * (n_gpus_needed(check) > 1)
        )
    names = [name for name, _ in timings.cases(Workload(Path(), torch.device("cuda", 0)))]
    print(f"  {len(names)} measurements: {', '.join(names)}")
    print("`python -m tests.gpu --rehearse` runs what a CPU can run, on a small workload.")


if __name__ == "__main__":
    main()
