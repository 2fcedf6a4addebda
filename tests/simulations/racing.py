"""Promotions that race for one champion, on a real S3 server.

`python -m tests.simulations.racing [--writers 24] [--rounds 50]` starts the embedded store. In
each round every writer reads the champion, waits for the others, and promotes a bundle of its own
over it. One of them may win; the others must be told that they lost. Printed is how many winners
the rounds had, and whether the chain of champions has exactly the winners, in their order.
"""

import argparse
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import Config
from components.shared.storage import Store, StoreSettings
from components.shared.storage.errors import StoreConflictError
from components.shared.storage.registry import BundleRegistry, Draft
from pipelines.local.embedded_store import embedded_store

BUCKET = "racing"


@dataclass(frozen=True)
class Result:
    """What came of the rounds.

    Attributes:
        winners: digests of the winners of each round.
        champions: the chain of champions, the first one first.
        n_decisions: recorded, those of the losers too.
        seconds: that all rounds took.
    """

    winners: list[list[str]]
    champions: list[str]
    n_decisions: int
    seconds: float

    @property
    def n_lost(self) -> int:
        """Winners that the chain of champions lacks, or has at another place."""
        flat = [digest for of_round in self.winners for digest in of_round]
        return sum(
            promoted != found for promoted, found in zip(flat, self.champions, strict=False)
        ) + abs(len(flat) - len(self.champions))


def race(settings: StoreSettings, bucket: str, n_writers: int, n_rounds: int) -> Result:
    """Let writers race, each with a connection and a bundle of its own."""
    registries = [BundleRegistry(Store(settings), bucket, "registry") for _ in range(n_writers)]
    digests = [_bundle(registry, number) for number, registry in enumerate(registries)]
    barrier = threading.Barrier(n_writers)

    def promote(number: int) -> bool:
        registry = registries[number]
        over = registry.champion()
        barrier.wait()
        draft = Draft(kind="comparison", promoted=True, challenger=digests[number], reason="a race")
        try:
            registry.decide(draft, over)
        except StoreConflictError:
            return False
        return True

    winners, begin = [], time.perf_counter()
    with ThreadPoolExecutor(n_writers) as pool:
        for _ in range(n_rounds):
            won = pool.map(promote, range(n_writers))
            winners.append([digests[number] for number, is_won in enumerate(won) if is_won])

    seconds = time.perf_counter() - begin
    champions = [digest for digest, _ in reversed(registries[0].champions())]
    n_decisions = len(list(registries[0].decisions()))
    return Result(winners, champions, n_decisions, seconds)


def _bundle(registry: BundleRegistry, number: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        with writing(path, kind="Bundle", step="export_bundle", config=Config()) as staging:
            write_json(staging / "bundle.json", {"name": "racer", "version": str(number)})
        return registry.put_bundle(path)


def main() -> None:
    """Race on the embedded store, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()

    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_store(Path(folder), buckets=(BUCKET,)) as settings,
    ):
        result = race(settings, BUCKET, given.writers, given.rounds)

    counts = [len(of_round) for of_round in result.winners]
    print(f"{given.rounds} rounds of {given.writers} promotions in {result.seconds:.0f} s")
    print(f"rounds with one winner: {counts.count(1)}, with none: {counts.count(0)}")
    print(f"rounds with several winners: {sum(count > 1 for count in counts)}")
    print(f"lost updates: {result.n_lost}")
    print(f"recorded decisions: {result.n_decisions}")


if __name__ == "__main__":
    main()
