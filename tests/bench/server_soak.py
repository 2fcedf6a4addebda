"""A server at its limit for minutes, and then its end: python -m tests.bench.server_soak.

More clients ask than the queue holds, so that some requests are refused with 503 all the time;
every minute the resident memory is printed. Then SIGTERM arrives under load. It ends with 1 where
an answer is neither 200 nor 503, a request is lost, or memory grew by more than a twentieth after
the first quarter.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.photographs import photographs
from tests.bench.served_bundle import write_bundle
from tests.bench.server_load import Load, finish_load, start_load
from tests.serving_server import Process

_CLIENTS, _QUEUE = 24, 16
_MOST_GROWTH = 1.05


def soak(
    seconds: float, bundle: Path, images: list[Path], n_samples: int
) -> tuple[Load, list[int]]:
    """Return what clients saw until the server's end, and its memory in KiB at equal times."""
    with Process("--queue", _QUEUE, bundle) as process:
        # The clients go on until nobody listens any more.
        load = start_load(process.said["http"], _CLIENTS, seconds + 60, images)
        memory = []
        for _ in range(n_samples):
            time.sleep(seconds / n_samples)
            memory.append(_resident(process.pid))
            print(f"{memory[-1] / 1024:.0f} MB", flush=True)
        assert process.end() == 0, process.errors()
    return finish_load(load), memory


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def problems(load: Load, memory: list[int]) -> list[str]:
    """Return what is wrong with a soak."""
    found = [
        f"{count} requests: {status}"
        for status, count in load.statuses.items()
        if status not in ("200", "503")
    ]
    settled = memory[len(memory) // 4]
    if memory[-1] > _MOST_GROWTH * settled:
        found.append(f"memory grew from {settled} to {memory[-1]} KiB")
    return found


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.server_soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes

    with tempfile.TemporaryDirectory() as folder, photographs(8) as images:
        bundle = write_bundle(Path(folder))
        load, memory = soak(minutes * 60, bundle, images, max(8, round(minutes)))
    print(
        f"{load.statuses} in {load.seconds:.0f} s, {load.images_per_second:.1f} images/s,"
        f" p50 {load.milliseconds(0.5):.0f} ms, p99 {load.milliseconds(0.99):.0f} ms,"
        f" {load.refused} clients found the server ended"
    )
    found = problems(load, memory)
    print("\n".join(found) or "no error, nothing lost, memory flat")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
