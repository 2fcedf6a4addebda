"""Processor time and memory of a LoRA training step against the usual trainers'.

Peers: Hugging Face's Trainer, PyTorch Lightning, a loop with accelerate: the same model, batches,
optimiser, schedule and clipping in fp32, one process. A step is what lies between two forward
passes, in processor time. The loss curves must be equal.
"""

import json
import statistics
import subprocess
import sys

from tests.bench.lora_trainings import STEPS, TRAININGS, one_process
from tests.bench.measure import Result

_ROUNDS = 3
_PEAKS = 3  # processes, of which the median counts: pages come and go by 5 %
_GOAL_MEMORY = 1.05
_TOLERANCE = 1e-4  # of a loss near ln 2: fp32 sums in another order, over STEPS steps


def run() -> list[Result]:
    """One result for each peer; raises AssertionError where a loss curve is another one."""
    with one_process():
        curves = {name: train().losses for name, train in TRAININGS.items()}
        apart = {name: _largest_difference(curve, curves["ours"]) for name, curve in curves.items()}
        assert all(len(curve) == STEPS for curve in curves.values()), {
            n: len(c) for n, c in curves.items()
        }
        assert max(apart.values()) < _TOLERANCE, apart
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in TRAININGS}
        for _ in range(_ROUNDS):
            for name, train in TRAININGS.items():
                seconds[name] += train().seconds
    medians = {
        name: tuple(map(statistics.median, zip(*pairs, strict=True)))
        for name, pairs in seconds.items()
    }
    peaks = {name: statistics.median(_peak(name) for _ in range(_PEAKS)) for name in TRAININGS}
    return [_result(name, medians, peaks, apart) for name in TRAININGS if name != "ours"]


def _result(
    name: str,
    medians: dict[str, tuple[float, ...]],
    peaks: dict[str, float],
    apart: dict[str, float],
) -> Result:
    ratio = peaks["ours"] / peaks[name]
    verdict = "reached" if ratio <= _GOAL_MEMORY else "MISSED"
    note = (
        f"peak memory {ratio:.2f}x of {peaks[name] / 1e6:.0f} MB, goal {_GOAL_MEMORY}x {verdict}; "
        f"{medians[name][1] / medians['ours'][1]:.2f}x in elapsed time; "
        f"loss curves of {STEPS} steps equal to {apart[name]:.0e}"
    )
    return Result(
        "LoRA training step", name, medians["ours"][0], medians[name][0], goal=1.0, note=note
    )


def _largest_difference(first: list[float], second: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def _peak(name: str) -> int:
    """In a process of its own, whose allocator has given nothing back yet."""
    command = [sys.executable, "-m", "tests.bench.lora_trainings", name]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(finished.stdout.splitlines()[-1]))
