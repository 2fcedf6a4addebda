"""Bytes that each step of the demo run fetches, hashes, reads, writes and stores.

`python -m tests.studies.bytes_per_step FOLDER [--checkout OTHER] [ARGUMENT...]`.

The demo runs in FOLDER, from this checkout or another one (an older version, for comparison), with
further arguments of `python -m pipelines run` (`--pretrain unlabelled`, `--param mode=lora`). Every
process of it counts (`counting/sitecustomize.py`). In the table, all in MB (1e6 bytes):

* fetched: size of the input artifacts, which every pod downloads before it starts;
* hashed: bytes given to SHA-256, all ranks together;
* read: bytes that the kernel copied to the processes, of libraries too, but not of mapped files;
* written: bytes of pages that the processes made dirty;
* stored: size of the output artifacts, which every pod uploads.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

_COUNTING = Path(__file__).parent / "counting"
COLUMNS = ("fetched", "hashed", "read", "written", "stored")


def main() -> None:
    """Run the demo, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.bytes_per_step")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkout", type=Path, default=Path.cwd())
    parsed, arguments = parser.parse_known_args()
    log = parsed.folder / "bytes"
    log.mkdir(parents=True)

    command = [sys.executable, "-m", "pipelines", "run", "--demo"]
    command += ["--output", str(parsed.folder.resolve() / "runs"), *arguments]
    path = os.pathsep.join([str(_COUNTING.resolve()), str(parsed.checkout.resolve())])
    environment = os.environ | {"PYTHONPATH": path, "BYTES_LOG": str(log.resolve())}
    started = time.monotonic()
    subprocess.run(command, cwd=parsed.checkout, env=environment, check=True)
    print(f"{time.monotonic() - started:.0f} s")
    for line in table(log):
        print(line)


def table(log: Path) -> list[str]:
    """Return a Markdown table of what the steps noted in the folder `log`, in the order of time."""
    lines = ["| step | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    total: Counter[str] = Counter()

    files = [file for file in log.glob("*.jsonl") if file.stem != "run"]
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        counted = read_step(file)
        total.update(counted)
        lines.append(_row(file.stem, counted))

    return [*lines, _row("all", total)]


def read_step(file: Path) -> Counter[str]:
    """Return the bytes in each column that the processes of one step noted."""
    counted: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        noted = json.loads(line)
        counted["hashed"] += noted.get("hashed", 0)
        counted["read"] += noted.get("rchar", 0)
        counted["written"] += noted.get("write_bytes", 0)
        for column in ("fetched", "stored"):
            counted[column] += sum(noted.get(column, {}).values())
    return counted


def _row(name: str, counted: Counter[str]) -> str:
    cells = " | ".join(f"{counted[column] / 1e6:,.1f}" for column in COLUMNS)
    return f"| {name} | {cells} |"


if __name__ == "__main__":
    main()
