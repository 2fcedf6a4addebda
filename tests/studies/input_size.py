"""Study of crops from stored pixels: `python -m tests.studies.input_size FOLDER`.

GTSDB stored at 224 and at 448 pixels, seen by a frozen DINOv2-S at 224. Heads are trained by the
project's loop on features of the whole image and of augmented ones, whose crops come from the
stored pixels, and score the images of the day that was left out, for several seeds. Every pair of
rows has the same crops. Features take half an hour of one core for each augmentation the first
time and are kept in FOLDER, one file for each set.
"""

import argparse
import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from components.shared.contracts.options import LoopConfig
from components.shared.data.dataset import Dataset
from components.shared.models.backbone import image_statistics, load_backbone
from components.shared.models.classifier import Classifier, Head, new_head
from components.shared.stats.bootstrap import membership, paired_difference
from components.shared.stats.metrics import auroc, average_precision
from components.shared.training.loop.distributed import World
from components.shared.training.loop.dropout import dropout_mask
from components.shared.training.loop.inference import (
    SplitData,
    augmented_features,
    drawn_augmentations,
)
from components.shared.training.loop.sampler import step_rng
from components.shared.training.session.fit import fit
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.studies import heads
from tests.studies.features import CLASSES
from tests.studies.gtsdb import SHARED
from tests.studies.gtsdb_adapted import prepare

SEEN = 224
BACKBONE = SHARED / "weights/dinov2-small-imgfocus"
WORLD = World(0, 1, torch.device("cpu"))
N_REPLICATES = 2000
_CHOICE = 1  # of this study's random streams; the heads' dropout has 0
_METRICS = {"AUROC": auroc, "AP": average_precision}
Values = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Images under several augmentations.

    Attributes:
        features: (N, A, 2h) float32; the first set is of the unaugmented images.
        truth: (N,) whether roadwork is seen.
        days: (N,) recording day.
        groups: Place of each image.
    """

    features: Values
    truth: npt.NDArray[np.bool_]
    days: npt.NDArray[np.str_]
    groups: tuple[str, ...]


def seen(
    root: Path, stored: int, n_sets: int, strength: str, n_negatives: int | None = None
) -> Seen:
    """Return features of the images that are stored at a size, from FOLDER or computed.

    `n_negatives`: how many of the images without roadwork are drawn; None: all.
    """
    data = Dataset.open(prepare(root, stored))
    labels = np.array([sample.label for sample in data.samples], dtype=np.int64)
    negatives = np.random.default_rng(0).permutation(np.flatnonzero(labels == 0))[:n_negatives]
    rows = np.sort(np.concatenate([negatives, np.flatnonzero(labels == 1)]))
    samples, labels = [data.samples[row] for row in rows], labels[rows]
    part = SplitData(data, rows, labels)
    drawn = drawn_augmentations(len(part), n_augmentations=n_sets, augmentation=strength, seed=0)

    sets = []
    for number, parameters in enumerate(drawn):
        name = f"{stored}-{len(rows)}-{number}" + (f"-{strength}" if number else "")
        file = root / f"features-{name}.npy"
        if not file.is_file():
            found = augmented_features(
                _classifier(),
                part,
                np.arange(len(part)),
                WORLD,
                parameters=[parameters],
                precision="fp32",
            )
            np.save(file, found.numpy(), allow_pickle=False)
        sets.append(np.load(file, allow_pickle=False))

    return Seen(
        np.concatenate(sets, axis=1),
        labels == 1,
        np.array([sample.attributes["recording_day"] for sample in samples]),
        tuple(sample.group for sample in samples),
    )


def _classifier() -> Classifier:
    backbone = load_backbone(BACKBONE)
    mean, std = image_statistics(BACKBONE)
    spec = ClassifierSpec(CLASSES, SEEN, mean, std, backbone.config.model_type)
    return Classifier(backbone, new_head(2 * backbone.config.hidden_size, spec), spec).eval()


class _AugmentedTask:
    """Balanced, smoothed cross-entropy; every step draws one set per image."""

    monitor = None

    def __init__(self, features: Values, truth: npt.NDArray[np.bool_], seed: int) -> None:
        torch.manual_seed(seed)
        self.module = Head(features.shape[-1], 2)
        self.n_samples, self._features, self._seed = len(truth), features, seed
        self._labels = torch.from_numpy(truth.astype(np.int64))
        counts = np.bincount(truth, minlength=2)
        self._weights = torch.from_numpy((len(truth) / (2 * counts)).astype(np.float32))

    def loss(
        self, model: torch.nn.Module, positions: np.ndarray, batch_slots: np.ndarray, step: int
    ) -> torch.Tensor:
        """Summed over the images."""
        n_sets, width = self._features.shape[1:]
        chosen = step_rng(self._seed, step, _CHOICE).integers(n_sets, size=heads.BATCH)
        taken = torch.from_numpy(self._features[positions, chosen[batch_slots]])
        mask = dropout_mask(heads.DROPOUT, batch_slots, width, self._seed, step, 0, taken.device)
        return F.cross_entropy(
            model(taken, mask),
            self._labels[positions],
            self._weights,
            label_smoothing=heads.SMOOTHING,
            reduction="sum",
        )

    def evaluate(self) -> dict[str, float]:
        """Nothing: the last epoch counts."""
        return {}


def margins(images: Seen, n_sets: int, seed: int) -> Floats:
    """Return margins (N,) of every image by a head that was trained on the other days."""
    config = LoopConfig(
        epochs=heads.EPOCHS, learning_rate=1e-3, global_batch_size=heads.BATCH, seed=seed
    )
    found = np.zeros(len(images.truth))
    for day in np.unique(images.days):
        out = images.days == day
        task = _AugmentedTask(images.features[~out, :n_sets], images.truth[~out], seed)
        with contextlib.redirect_stderr(io.StringIO()):  # hundreds of short progress bars
            fit(task, config, WORLD)
        with torch.inference_mode():
            logits = task.module.eval()(torch.from_numpy(images.features[out, 0])).double().numpy()
        found[out] = logits[:, 1] - logits[:, 0]
    return found


def table(rows: dict[str, tuple[Seen, list[Floats]]]) -> Iterator[str]:
    """Yield the lines of a Markdown table; differences are to the first row.

    A row's metrics are means over its seeds. So are the differences, whose intervals are over
    places: each replicate draws places, and takes the mean over the seeds.
    """
    head = [f"{name} (range of the seeds) | difference | 95 %" for name in _METRICS]
    yield f"| stored | training images | {' | '.join(head)} |"
    yield "|---" * (2 + 3 * len(_METRICS)) + "|"

    images, base = next(iter(rows.values()))
    member = membership(images.groups, len(images.truth))
    for name, (_, found) in rows.items():
        cells = []
        for metric in _METRICS.values():
            ours = partial(_mean, metric, images.truth, found)
            values = [float(metric(images.truth, margin)) for margin in found]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
            if found is base:
                cells += ["", ""]
                continue
            theirs = partial(_mean, metric, images.truth, base)
            difference = paired_difference(ours, theirs, member, N_REPLICATES, 0)
            low, high = difference.interval or (np.nan, np.nan)
            cells += [f"{difference.value:+.3f}", f"{low:+.3f} to {high:+.3f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def _mean(
    metric: Callable[..., Floats],
    truth: npt.NDArray[np.bool_],
    found: Sequence[Floats],
    weights: Floats | None,
) -> Floats:
    """Return the mean of a metric over the margins of several seeds, with replicate weights."""
    return np.asarray(np.mean([metric(truth, margin, weights) for margin in found], axis=0))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.input_size", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of data sets and features")
    parser.add_argument("--sets", type=int, default=4, help="feature sets per image")
    parser.add_argument("--strength", default="moderate", choices=("moderate", "aggressive"))
    parser.add_argument(
        "--negatives", type=int, help="images without roadwork, drawn; all where it is not given"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of heads for each row and day")
    parser.add_argument("--sizes", type=int, nargs=2, default=(224, 448), help="stored sizes")
    parsed = parser.parse_args()

    parsed.folder.mkdir(parents=True, exist_ok=True)
    of_size = {
        size: seen(parsed.folder, size, parsed.sets, parsed.strength, parsed.negatives)
        for size in parsed.sizes
    }
    small, large = of_size.items()
    rows = {
        f"{small[0]} | augmented": (small[1], parsed.sets),
        f"{large[0]} | augmented, crops of the stored pixels": (large[1], parsed.sets),
        f"{small[0]} | not augmented": (small[1], 1),
        f"{large[0]} | not augmented, resized": (large[1], 1),
    }
    with heads.alone():
        found = {
            name: (images, [margins(images, n_sets, seed) for seed in range(parsed.seeds)])
            for name, (images, n_sets) in rows.items()
        }
    n_positive, count = int(small[1].truth.sum()), len(small[1].truth)
    print(f"\n{n_positive} of {count} images are positive.\n")
    print("\n".join(table(found)), flush=True)


if __name__ == "__main__":
    main()
