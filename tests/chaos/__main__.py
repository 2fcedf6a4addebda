"""Runs of the demo pipeline that are disturbed at random, for a given time.

`python -m tests.chaos [--minutes 60] [--seed 0] [--folder FOLDER]`, or `make test-chaos`.

Every end has to be one of two: the bytes of an undisturbed run, or one typed line with its exit
code; and it leaves no process, port or temporary file. What a killed run leaves in the folder of
runs is there for the next round, which goes on in it. Prints how often what happened, and exits
with 1 after any other end, whose log is kept. The seed decides what is done; when it meets the run
depends on the machine.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

from components.shared.contracts.interrupts import interruptible
from components.shared.contracts.listing import first_of
from pipelines.demo.backbone import write_demo_backbone
from pipelines.demo.dataset import write_demo_data
from tests.chaos.disturbances import ALL, Bench, Ended
from tests.chaos.runs import END_SECONDS, LONGEST_SECONDS, outputs_digest, problems

# Seconds per run, all phases: 400 images of 64 pixels, only heads are trained.
SMALL = {
    "recipe": "demo",
    "image_size": 64,
    "mode": "frozen",
    "epochs": 2,
    "n_bootstrap": 100,
    "n_processes": 1,
}
N_IMAGES = 400
_STORES = ("none", "embedded")


class Chaos:
    """Rounds, and what came of them."""

    def __init__(self, work: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.bench = Bench(work, ["--params", str(work / "small.yaml")])
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.longest_end = 0.0
        self.expected: dict[str, str] = {}

    def prepare(self) -> None:
        """Write data, backbone and parameters; make an undisturbed run."""
        work = self.bench.work
        (work / "logs").mkdir(parents=True)
        write_demo_data(work / "data", n_images=N_IMAGES)
        write_demo_backbone(work / "backbone")
        values = SMALL | {"data": str(work / "data"), "backbone": str(work / "backbone")}
        (work / "small.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

        began = time.monotonic()
        self._expected("none")
        self.bench.duration = time.monotonic() - began

    def _expected(self, store: str) -> str:
        """Return the digest of an undisturbed run's outputs, which is made where it is missing."""
        if store not in self.expected:
            began = time.monotonic()
            run = self.bench.start(store, self.bench.work / f"undisturbed-{store}")
            run.wait(LONGEST_SECONDS)
            if run.process.returncode != 0 or problems(run):
                sys.exit(f"error: an undisturbed run failed; see {run.log}")
            self.expected[store] = outputs_digest(run)
            print(f"undisturbed, store {store}: {time.monotonic() - began:.0f} s", flush=True)
        return self.expected[store]

    def round(self) -> None:
        """Forget some of what earlier runs made, disturb a run, and look at its end."""
        for store in _STORES:
            self._forget(self.bench.output(store))

        disturbances, weights = zip(*ALL, strict=True)
        disturb = self.rng.choices(disturbances, weights)[0]
        name, ended = disturb(self.bench, self.rng)
        if not ended:
            self.counts[name, "skipped"] += 1

        for end in ended:
            outcome = self._outcome(name, end)
            self.counts[name, outcome] += 1
            print(f"{name}: {outcome}; {end.run.last_line()[:150]}", flush=True)

        # A damaged lineage or source of the cache may need a person: begin again.
        if name.startswith("damage") and ended[-1].run.process.returncode != 0:
            shutil.rmtree(self.bench.output("none"))

    def _forget(self, output: Path) -> None:
        """Drop some entries of the cache, or everything: there must be something to run."""
        if self.rng.random() < 0.2:
            shutil.rmtree(output, ignore_errors=True)
        for entry in sorted((output / ".cache").glob("*")):
            if self.rng.random() < 0.3:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _outcome(self, name: str, end: Ended) -> str:
        """Return how a run ended, in words; note what is wrong with it."""
        run, code = end.run, end.run.process.returncode
        self.longest_end = max(self.longest_end, end.seconds)
        found = problems(run, end.sent)
        if end.seconds > END_SECONDS:
            found.append(f"ended {end.seconds:.1f} s after the signal")
        if code == 0:
            store = run.arguments[-1]
            if (run.digest or outputs_digest(run)) != self._expected(store):
                found.append("other bytes than the undisturbed run")

        if found:
            self.wrong.append(f"{name}: {first_of(found, separator='; ')}; see {run.log}")
            print(f"  WRONG: {self.wrong[-1]}", flush=True)
            return "wrong"
        if code == 0:
            return "same bytes"
        return "killed" if code is not None and code < 0 else f"one line, exit code {code}"


def main() -> None:
    """Disturb runs until the time is over; print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="default: a temporary one, kept if wrong")
    given = parser.parse_args()

    work = (given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).resolve()
    chaos = Chaos(work, given.seed)
    with interruptible(), chaos.bench.runs_ended():
        chaos.prepare()
        ends = time.monotonic() + 60 * given.minutes
        while time.monotonic() < ends:
            chaos.round()

    print(f"\n{chaos.bench.n_runs} runs, seed {given.seed}")
    for (name, outcome), count in sorted(chaos.counts.items()):
        print(f"{count:4}  {name}: {outcome}")
    print(f"longest time from a signal to the end of all processes: {chaos.longest_end:.1f} s")
    for line in chaos.wrong:
        print(f"WRONG {line}")

    if chaos.wrong:
        sys.exit(1)
    if given.folder is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
