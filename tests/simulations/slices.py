"""How often a slice is called worse than the rest where all slices are equally hard.

python -m tests.simulations.slices --draws 200

Groups differ in difficulty, slices do not: every slice that is called worse is a false alarm. Of
each data set all slices are looked at, so the stated probability is that of any false alarm among
them. Power is that of the one slice whose error rate is raised.
"""

import argparse
from functools import partial

import numpy as np

from components.shared.stats.bootstrap import Statistic
from components.shared.stats.metrics import Bools, Integers, weighted_mean
from components.shared.stats.slices import Slice, compare_to_rest, find_slices

_ERROR = 0.1
_REPLICATES = 500


def draw(
    rng: np.random.Generator, n_groups: int, raised: float
) -> tuple[tuple[Slice, ...], Bools, tuple[str, ...]]:
    """Return the slices of three columns, which images are errors, and their groups.

    A group has 1 to 4 images and an error rate of its own (beta, mean 0.1); in half of the columns
    a group has one value. The slice a=0 has `raised` more errors.
    """
    sizes = rng.integers(1, 5, n_groups)
    group = np.repeat(np.arange(n_groups), sizes)
    of_group = rng.integers(0, 4, n_groups)[group]
    columns = {
        "a": of_group,
        "b": rng.integers(0, 5, len(group)),
        "c": rng.integers(0, 2, n_groups)[group],
    }
    rate = rng.beta(0.5, 0.5 * (1 - _ERROR) / _ERROR, n_groups)[group]
    error = rng.random(len(group)) < np.where(of_group == 0, rate + raised * (1 - rate), rate)
    names = tuple(f"g{number}" for number in group.tolist())
    texts = {name: [str(value) for value in values.tolist()] for name, values in columns.items()}
    return find_slices(texts, names), error, names


def alarms(n_groups: int, raised: float, n_draws: int, seed: int) -> tuple[float, float]:
    """Return how often any other slice than a=0 is called worse, and how often a=0 is."""
    rng = np.random.default_rng(seed)
    n_false = n_found = 0

    for number in range(n_draws):
        slices, error, groups = draw(rng, n_groups, raised)
        found = compare_to_rest(
            slices, partial(_accuracy, error), groups, n_replicates=_REPLICATES, seed=number
        )
        worse = {
            item.name
            for item, estimate in zip(slices, found, strict=True)
            if estimate.interval is not None and estimate.interval[1] < 0
        }
        n_found += "a=0" in worse
        n_false += bool(worse - {"a=0"}) if raised else bool(worse)

    return n_false / n_draws, n_found / n_draws


def _accuracy(error: Bools, rows: Integers) -> Statistic:
    return partial(weighted_mean, ~error[rows])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulations.slices", description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    n_draws = parser.parse_args().draws

    print("| groups | any false alarm, all equal | a=0 found, 0.1 more errors | 0.2 more |")
    print("|---|---|---|---|")
    for n_groups in (100, 200, 400):
        false, _ = alarms(n_groups, 0.0, n_draws, 0)
        found = [alarms(n_groups, raised, n_draws, 1)[1] for raised in (0.1, 0.2)]
        print(f"| {n_groups} | {false:.3f} | {found[0]:.3f} | {found[1]:.3f} |")


if __name__ == "__main__":
    main()
