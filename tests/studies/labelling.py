"""Study of what labels to buy: `python -m tests.studies.labelling --cache FOLDER`.

GTSDB, frozen features of DINOv2-S; as a control the digits of scikit-learn. A third of the places
is held out; of the others 60 images are labelled at random, and 40 more in each of six rounds: by
`select_for_labelling`'s own choice, by uncertainty alone, or at random. After each round a logistic
regression is trained on the labels bought so far, and judges the held-out images. The model defers
nothing here, and places are what near-duplicates are to the phase: one image of each is bought in
a round. 10 seeds draw held-out places, first labels and choices; all strategies of a seed share the
former two. Intervals are over the seeds.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.select_for_labelling.selection import choose
from tests.studies.features import Regime, features, labelled_records
from tests.studies.gtsdb import SHARED

N_FIRST, N_ROUND, N_ROUNDS, N_SEEDS = 60, 40, 6, 10
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Features (N, 2h) float32, labels (N,) bool, and number (N,) of the place of each image."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.bool_]
    groups: Rows


# From the pool's images, their margins, the number to buy, and a seed: rows of the pool.
Strategy = Callable[[Images, Rows, Floats, int, int], Rows]


def ours(images: Images, pool: Rows, margins: Floats, count: int, seed: int) -> Rows:
    """Choose as the phase does."""
    none = np.zeros(len(pool), dtype=bool)
    groups = images.groups[pool]
    chosen = choose(images.features[pool], np.abs(margins), none, groups, count, seed)
    return pool[chosen.rows]


def uncertain(images: Images, pool: Rows, margins: Floats, count: int, seed: int) -> Rows:
    """Choose the images nearest to the threshold."""
    del images, seed
    return pool[np.argsort(np.abs(margins), kind="stable")[:count]]


def random(images: Images, pool: Rows, margins: Floats, count: int, seed: int) -> Rows:
    """Choose at random."""
    del images, margins
    return np.random.default_rng([seed, len(pool)]).permutation(pool)[:count]


STRATEGIES: dict[str, Strategy] = {
    "select_for_labelling": ours,
    "uncertainty alone": uncertain,
    "random": random,
}


def curve(images: Images, strategy: Strategy, seed: int) -> tuple[Floats, Rows]:
    """Return AUROC on held-out places, and positives bought, after each round (N_ROUNDS + 1,)."""
    splitter = GroupShuffleSplit(1, test_size=1 / 3, random_state=seed)
    train, held_out = next(splitter.split(images.features, groups=images.groups))
    bought = _first(images, train, seed)
    areas, positives = [], []

    for number in range(N_ROUNDS + 1):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
        ).fit(images.features[bought], images.labels[bought])
        scores = model.decision_function(images.features[held_out])
        areas.append(float(roc_auc_score(images.labels[held_out], scores)))
        positives.append(int(images.labels[bought].sum()))

        if number < N_ROUNDS:
            pool = np.setdiff1d(train, bought)
            margins = model.decision_function(images.features[pool])
            chosen = strategy(images, pool, margins, N_ROUND, 1000 * seed + number)
            bought = np.concatenate([bought, chosen])

    return np.array(areas), np.array(positives)


def _first(images: Images, train: Rows, seed: int) -> Rows:
    """Return the images that are labelled first, among them both classes."""
    for attempt in range(100):
        drawn = np.random.default_rng([seed, attempt]).permutation(train)[:N_FIRST]
        if len(set(images.labels[drawn].tolist())) == 2:
            return np.asarray(drawn)
    raise AssertionError("no draw has both classes")


def table(found: dict[str, tuple[Floats, Rows]]) -> Iterator[str]:
    """Yield the lines of a Markdown table from areas and positives (seeds, rounds)."""
    yield (
        "| labels | "
        + " | ".join(f"{name} | positives" for name in found)
        + " | first minus random, 95 % |"
    )
    yield "|---" * (2 * len(found) + 2) + "|"
    first, base = next(iter(found.values()))[0], found["random"][0]
    for number in range(N_ROUNDS + 1):
        cells = [
            f"{areas[:, number].mean():.3f} | {positives[:, number].mean():.0f}"
            for areas, positives in found.values()
        ]
        mean, low, high = mean_interval(first[:, number] - base[:, number])
        difference = "" if number == 0 else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        yield f"| {N_FIRST + number * N_ROUND} | {' | '.join(cells)} | {difference} |"

    for name, (areas, _) in found.items():
        if name != "random":
            gain = (areas - base)[:, 1:].mean(axis=1)
            mean, low, high = mean_interval(gain)
            interval = f"({low:+.3f} to {high:+.3f})"
            yield f"\nMean over all rounds, {name} minus random: {mean:+.3f} {interval}"


def mean_interval(values: Floats) -> tuple[float, float, float]:
    """Return the mean of paired differences and its 95 % interval by Student's t."""
    mean, error = float(values.mean()), float(stats.sem(values))
    distance = error * float(stats.t.ppf(0.975, len(values) - 1))
    return mean, mean - distance, mean + distance


def gtsdb(data: Path, backbone: Path, cache: Path) -> Images:
    """Return the images of GTSDB that have a label."""
    records = labelled_records(data)
    found = features(records, backbone, Regime(224), cache, precision="fp32").values[:, 0]
    labels = np.array([record.label == "Roadwork" for record in records])
    _, groups = np.unique([record.group for record in records], return_inverse=True)
    return Images(found, labels, groups.astype(np.int64))


def digits() -> Images:
    """Return scikit-learn's digits, the eights positive: a control whose features tell classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    labels = np.asarray(found.target == 8)
    return Images(found.data.astype(np.float32), labels, np.arange(len(labels)))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.labelling", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER", help="for features")
    parser.add_argument("--data", type=Path, default=SHARED / "data/gtsdb", metavar="FOLDER")
    parser.add_argument(
        "--backbone", type=Path, default=SHARED / "weights/dinov2-small-imgfocus", metavar="FOLDER"
    )
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parsed = parser.parse_args()

    data_sets = {
        "GTSDB": gtsdb(parsed.data, parsed.backbone, parsed.cache),
        "digits": digits(),
    }
    for title, images in data_sets.items():
        print(f"\n### {title}: {int(images.labels.sum())} of {len(images.labels)} are positive\n")
        print("\n".join(table(curves(images, parsed.seeds))), flush=True)


def curves(images: Images, n_seeds: int) -> dict[str, tuple[Floats, Rows]]:
    """Return AUROC and positives bought (seeds, rounds) of each strategy."""
    found = {}
    for name, strategy in STRATEGIES.items():
        of_seeds = [curve(images, strategy, seed) for seed in range(n_seeds)]
        areas, positives = zip(*of_seeds, strict=True)
        found[name] = np.array(areas), np.array(positives)
    return found


if __name__ == "__main__":
    main()
