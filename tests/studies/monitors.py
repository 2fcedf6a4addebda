"""Study of the monitor: which epoch each keeps, and how good that is on held-out images.

`python -m tests.studies.monitors --cache FOLDER`. Frozen features of GTSDB (868 real roads, 78
positive) by the DINOv2-S beside the project, and of the demo by its random backbone; random splits
by group into 60 % to train on, 20 % that select the epoch, and 20 % held out. The head is trained
by the project's loop with the phase's defaults, without augmentation. Beside each monitor the rule
that is usual and was ours: the first of equal epochs, be it in the warm-up. Features take five
minutes on one core the first time and are kept in FOLDER; the rest takes as long.
"""

import argparse
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import GroupShuffleSplit
from torch import nn
from torch.nn import functional as F

from components.shared.calibration.model_selection import selection_metrics
from components.shared.contracts.adaptations import MONITORS, monitored
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.dataset import Dataset
from components.shared.models.classifier import Head
from components.shared.training.loop.distributed import World
from components.shared.training.loop.dropout import dropout_mask
from components.shared.training.session.fit import fit
from components.train_baseline.config import TrainBaselineConfig
from tests.studies import explora_demo, heads
from tests.studies.features import Regime, features, labelled_records
from tests.studies.gtsdb import SHARED

N_SPLITS = 20
OUTCOMES = Outcomes.of(("None", "Roadwork"))
Values = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Features (N, 2h), labels (N,) with 1 for roadwork, and a group for each image."""

    features: Values
    labels: Integers
    groups: Sequence[str]


@dataclass(frozen=True)
class Kept:
    """The epoch that a monitor kept, and the metrics of its weights on the held-out images."""

    epoch: int
    metrics: dict[str, float]


class _HeadTask:
    """The phase's default loss on features; `parts` are train, select and held out."""

    def __init__(self, images: Images, parts: Sequence[Integers], config: TrainBaselineConfig):
        train, self._select, self._held_out = parts
        self._features = torch.from_numpy(images.features)
        self._labels, self._train, self._config = images.labels, train, config
        self.monitor: str | None = config.monitor
        self.n_samples = len(train)
        torch.manual_seed(config.seed)
        self.module: nn.Module = Head(images.features.shape[1], 2)
        self.selecting: list[dict[str, float]] = []
        self.held_out: list[dict[str, float]] = []

    def loss(
        self, model: nn.Module, positions: Integers, batch_slots: Integers, step: int
    ) -> torch.Tensor:
        """Smoothed cross-entropy, summed over the images."""
        config, rows = self._config, self._train[positions]
        n_features, device = self._features.shape[1], self._features.device
        mask = dropout_mask(config.dropout, batch_slots, n_features, config.seed, step, 0, device)
        logits = model(self._features[rows], mask)
        labels = torch.from_numpy(self._labels[rows])
        smoothing = config.label_smoothing
        return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")

    def evaluate(self) -> dict[str, float]:
        """Return the metrics on the images that select the epoch, and record both parts'."""
        self.selecting.append(self.metrics(self._select))
        self.held_out.append(self.metrics(self._held_out))
        return self.selecting[-1]

    def metrics(self, rows: Integers) -> dict[str, float]:
        """Return the metrics on some images."""
        with torch.no_grad():
            logits = self.module(self._features[rows]).numpy()
        return selection_metrics(logits, self._labels[rows], OUTCOMES)


def main() -> None:
    """Print one Markdown table for each data set."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.monitors", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER", help="for features")
    parser.add_argument("--data", type=Path, default=SHARED / "data/gtsdb", metavar="FOLDER")
    parser.add_argument(
        "--backbone", type=Path, default=SHARED / "weights/dinov2-small-imgfocus", metavar="FOLDER"
    )
    parsed = parser.parse_args()

    data_sets = {
        "GTSDB": gtsdb(parsed.data, parsed.backbone, parsed.cache),
        "demo": demo(parsed.cache / "demo"),
    }
    with heads.alone():
        for name, images in data_sets.items():
            print(f"\n### {name}: {int(images.labels.sum())} of {len(images.labels)} images\n")
            found = {monitor: list(kept(images, monitor)) for monitor in MONITORS}
            print("\n".join(table(found)), flush=True)


def gtsdb(folder: Path, backbone: Path, cache: Path) -> Images:
    """Return features of real roads."""
    records = labelled_records(folder)
    values = features(records, backbone, Regime(224), cache, precision="fp32").values[:, 0]
    labels = np.array([record.label == "Roadwork" for record in records], dtype=np.int64)
    return Images(values, labels, [record.group for record in records])


def demo(root: Path) -> Images:
    """Return features of the demo's scenes by its random backbone."""
    root.mkdir(parents=True, exist_ok=True)
    explora_demo.prepare(root)
    data = Dataset.open(root / "dataset")
    ids = [sample.sample_id for sample in data.samples]
    values = explora_demo.features(root / "pretrained", data, ids)
    return Images(values, explora_demo.labels(data, ids), [s.group for s in data.samples])


def kept(images: Images, monitor: str, n_splits: int = N_SPLITS) -> Iterator[tuple[Kept, Kept]]:
    """Yield what the monitor keeps of each split, by the project's rule and by the usual one."""
    for seed in range(n_splits):
        config = TrainBaselineConfig(monitor=monitor, seed=seed)
        task = _HeadTask(images, split(images, seed), config)
        # Hundreds of progress bars of a tenth of a second.
        with contextlib.redirect_stderr(io.StringIO()):
            result = fit(task, config, World(0, 1, torch.device("cpu")))

        values = [monitored(monitor, metrics[monitor]) for metrics in task.selecting]
        epochs = (result.best_epoch, first_best(values, config.patience or len(values)))
        ours, usual = (Kept(epoch, task.held_out[epoch - 1]) for epoch in epochs)
        yield ours, usual


def first_best(values: Sequence[float], patience: int) -> int:
    """Return the first epoch (from 1) of the best value, when patience ends the training."""
    best = 0
    for epoch, value in enumerate(values):
        if value > values[best]:
            best = epoch
        if epoch - best >= patience:
            break
    return best + 1


def split(images: Images, seed: int) -> tuple[Integers, Integers, Integers]:
    """Return rows to train on, to select by, and held out; groups stay together."""
    rows, groups = np.arange(len(images.labels)), np.array(images.groups)
    train, rest = next(
        GroupShuffleSplit(1, test_size=0.4, random_state=seed).split(rows, groups=groups)
    )
    halves = GroupShuffleSplit(1, test_size=0.5, random_state=seed)
    first, second = next(halves.split(rest, groups=groups[rest]))
    return train, rest[first], rest[second]


def table(found: dict[str, list[tuple[Kept, Kept]]]) -> Iterator[str]:
    """Yield two rows for each monitor: medians and means over the splits."""
    yield "| monitor | of equal epochs | epoch kept: median, range | AUROC | AP | NLL | accuracy |"
    yield "|---" * 7 + "|"
    for monitor, of_splits in found.items():
        rules = ("the latest, after the warm-up", "the first")
        for rule, of_rule in zip(rules, zip(*of_splits, strict=True), strict=True):
            epochs = [one.epoch for one in of_rule]
            means = [
                f"{np.mean([one.metrics[f'val_select/{name}'] for one in of_rule]):.3f}"
                for name in ("auroc", "ap", "nll", "acc")
            ]
            shown = f"{np.median(epochs):g}, {min(epochs)} to {max(epochs)}"
            yield f"| `{monitor}` | {rule} | {shown} | {' | '.join(means)} |"


if __name__ == "__main__":
    main()
