"""The whole of the fuzzing, by hand: python -m tests.fuzz.campaign [--cases N] [TARGET ...]

Prints for each target how many inputs were read, how many were refused by a typed error, each kind
of untyped exception with an input that causes it, the longest time of a case, and by how much the
process's memory grew. It ends with 1 if any exception was untyped.
"""

import argparse
import collections
import gc
import resource
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from components.shared.contracts.listing import shown
from tests.fuzz.targets import TARGETS, TYPED, Target, opened

CASES = 20_000
MOST_SECONDS = 10.0  # of one case, on a machine that does other things too


@dataclass
class Tally:
    """What the cases of one target came to."""

    read: int = 0
    typed: int = 0
    untyped: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: dict[str, str] = field(default_factory=dict)
    longest_seconds: float = 0.0
    grown_megabytes: float = 0.0

    @property
    def cases(self) -> int:
        """Number of all cases."""
        return self.read + self.typed + self.untyped.total()


def run_cases(target: Target, n_cases: int, start: int = 0) -> Tally:
    """Read so many inputs; a case never ends the run.

    Args:
        target: What is read.
        n_cases: How many inputs.
        start: Seed of the inputs.
    """
    tally = Tally()

    # No database and no shrinking: the tally is of independent inputs, and equal for equal seeds.
    @seed(start)
    @settings(
        max_examples=n_cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def case(value: Any) -> None:
        _count(tally, target, value)

    before = _megabytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case()
    tally.grown_megabytes = _megabytes() - before
    return tally


def _count(tally: Tally, target: Target, value: Any) -> None:
    started = time.perf_counter()
    try:
        target.read(value)
        tally.read += 1
    except TYPED:
        tally.typed += 1
    except Exception as error:
        kind = f"{type(error).__name__} at {_place(error)}"
        tally.untyped[kind] += 1
        tally.examples.setdefault(kind, f"{shown(str(error))} of {shown(value, 400)}")
    tally.longest_seconds = max(tally.longest_seconds, time.perf_counter() - started)


def _place(error: Exception) -> str:
    """The last line of ours that the error passed."""
    root = Path(__file__).resolve().parents[2]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f for f in frames if Path(f.filename).is_relative_to(root) and "/.venv/" not in f.filename
    ]
    last = (ours or list(frames))[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _megabytes() -> float:
    gc.collect()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    """Run the targets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--cases", type=int, default=CASES, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    failed = False
    print(
        f"{'target':16}{'cases':>8}{'read':>8}{'typed':>8}{'untyped':>9}{'longest':>10}{'memory':>10}"
    )
    for name in options.targets or TARGETS:
        with opened(name) as target:
            tally = run_cases(target, options.cases, options.seed)
        print(
            f"{name:16}{tally.cases:8}{tally.read:8}{tally.typed:8}{tally.untyped.total():9}"
            f"{tally.longest_seconds:8.2f} s{tally.grown_megabytes:7.0f} MB",
            flush=True,
        )
        for kind, count in tally.untyped.most_common():
            print(f"    {count} x {kind}: {tally.examples[kind]}", flush=True)
        failed = failed or bool(tally.untyped)
    sys.exit(failed)


if __name__ == "__main__":
    main()
