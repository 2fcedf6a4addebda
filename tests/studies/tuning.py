"""Study of the search over heads on real roads: `python -m tests.studies.tuning --cache FOLDER`.

Leave-one-day-out over six recording days. The phase `tune_head` searches on the other days (a fifth
of their places is VAL_SELECT); the head with the best options and the one with the defaults score
the day that neither has seen. Prints what the search said of itself, day by day, what the day left
out says, and the paired difference over places. With 100 trials a day two cores take about ten
minutes; the features, which `gtsdb` shares, three more the first time.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from components.shared.calibration.folds import group_folds
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.data.features import (
    SHARDS,
    FeatureLabels,
    FeatureRecipe,
    map_shards,
    rows_per_shard,
    shard_name,
    to_half,
    write_header,
)
from components.shared.stats import metrics
from components.shared.stats.bootstrap import membership, paired_difference
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.loop.distributed import World
from components.tune_head.config import TuneHeadConfig
from components.tune_head.search import HeadTrainer
from components.tune_head.step import run
from tests.studies import heads
from tests.studies.features import CLASSES, features, labelled_records
from tests.studies.gtsdb import SHARED, WHOLE, Data

METRICS = {
    "AUROC": metrics.auroc,
    "AP": metrics.average_precision,
    "NLL": metrics.nll,
}
_REPLICATES = 2000
_SPLITS = {"TRAIN": "train_features", "VAL_SELECT": "val_select_features"}
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Day:
    """One day: what the search said (tuning.json), its seconds, and the margins of the day.

    `cpu_seconds` are of the processes that the search started; on a machine that others use they
    say more than `seconds`.
    """

    said: dict[str, Any]
    seconds: float
    cpu_seconds: float
    margins: dict[str, Floats]


def main() -> None:
    """Print both tables."""
    parsed = _arguments()
    records = labelled_records(SHARED / "data/gtsdb")
    data = Data.of(records, "all positives")
    backbone = SHARED / "weights/dinov2-small-imgfocus"
    values = features(records, backbone, WHOLE, parsed.cache, precision="fp32").values[data.kept]

    days: dict[str, Day] = {}
    margins = {name: np.zeros(len(data.truth)) for name in ("default", "best")}
    for day in np.unique(data.days):
        out = data.days == day
        days[str(day)] = _searched(values, data, out, parsed.trials, parsed.monitor)
        for name, found in days[str(day)].margins.items():
            margins[name][out] = found
        print(f"  {day}: {days[str(day)].seconds:.0f} s", flush=True)

    print("\n".join(_days_table(days, parsed.trials)))
    print("\n".join(_table(data, margins)))


def _searched(
    values: npt.NDArray[np.float32],
    data: Data,
    out: npt.NDArray[np.bool_],
    trials: int,
    monitor: str,
) -> Day:
    """Search on all days but one, and score that one with the best and the default options."""
    rest = np.flatnonzero(~out)
    labels = data.truth.astype(np.int64)
    groups = np.array(data.places)
    select = group_folds(labels[rest], groups[rest].tolist(), seed=0) == 0

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, rows in (("TRAIN", rest[~select]), ("VAL_SELECT", rest[select])):
            _write(folder / _SPLITS[split], split, values[rows], labels[rows], groups[rows])

        training = {"monitor": monitor, "positive_class": "Roadwork"}
        config = TuneHeadConfig(n_trials=trials, training=training)
        started, before = time.perf_counter(), _cpu_seconds()
        with contextlib.redirect_stdout(io.StringIO()):
            run(
                config,
                train_features=folder / "train_features",
                val_select_features=folder / "val_select_features",
                tuning=folder / "tuning",
            )
        seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - before
        said = json.loads((folder / "tuning/tuning.json").read_text())
        best = yaml.safe_load((folder / "tuning/best.yaml").read_text())["train_baseline"]
        margins = dict(_scored(folder, values[out], training, best))
    return Day(said, seconds, cpu_seconds, margins)


def _cpu_seconds() -> float:
    """Return the time that processors have spent for ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _scored(
    folder: Path, values: npt.NDArray[np.float32], *options: dict[str, Any]
) -> Iterator[tuple[str, Floats]]:
    """Yield the margins of features (n, V, 2h) by heads with the default and the best options."""
    world = World(0, 1, torch.device("cpu"))
    trainer = HeadTrainer(*(folder / name for name in _SPLITS.values()), world)
    with heads.alone():
        for name, given in zip(("default", "best"), options, strict=True):
            config = dataclasses.replace(ClassifierConfig.from_mapping(given), precision="fp32")
            classifier, _ = trainer.fitted(config)
            half = to_half(values[:, 0], "features").astype(np.float32)
            with torch.inference_mode():
                logits = classifier.head(torch.from_numpy(half)).double().numpy()
            yield name, logits[:, 1] - logits[:, 0]


def _write(
    path: Path,
    split: str,
    values: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.str_],
) -> None:
    """Write the artifact of one split, of features (n, 1, 2h) of unaugmented images."""
    ids = [f"{number:016x}" for number in range(len(values))]
    recipe, size = FeatureRecipe(1, "none", 0, "fp32"), rows_per_shard((1, values.shape[-1]))
    kind = Kind.features_of(split)
    with writing(path, kind=kind, step="study", config=Config(), split=split) as out:
        (out / SHARDS).mkdir()
        files = [out / SHARDS / shard_name(i) for i in range(-(-len(values) // size))]
        for number, file in enumerate(files):
            part = values[number * size : (number + 1) * size]
            np.save(file, to_half(part, split), allow_pickle=False)
        found = map_shards(files, ids, (1, values.shape[-1]), recipe)
        member = membership(groups.tolist(), len(groups))
        write_header(out, split, found, FeatureLabels(CLASSES, labels, member))


def _days_table(days: dict[str, Day], trials: int) -> Iterator[str]:
    """Yield what each search said of itself on VAL_SELECT."""
    yield f"\n### VAL_SELECT: {trials} trials for each day left out\n"
    rates = "trials a minute | of CPU time"
    yield f"| day left out | images | default | best | corrected | optimism | {rates} |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, day in days.items():
        said = day.said
        cells = [said["default"], said["best"], said["corrected"], said["optimism"]]
        shown = " | ".join(f"{cell:.3f}" for cell in cells)
        a_minute = [60 * trials / seconds for seconds in (day.seconds, day.cpu_seconds)]
        rates = " | ".join(f"{rate:.0f}" for rate in a_minute)
        yield f"| {name} | {said['n_samples']} | {shown} | {rates} |"


def _table(data: Data, margins: dict[str, Floats]) -> Iterator[str]:
    """Yield the metrics on the days left out, and the paired differences over places."""
    member = membership(data.places, len(data.places))
    yield f"\n### Days left out: {int(data.truth.sum())} of {len(data.truth)} images\n"
    yield "| metric | default | best | difference | 95 % |"
    yield "|---|---|---|---|---|"
    for name, metric in METRICS.items():
        default, best = (partial(metric, data.truth, margins[key]) for key in ("default", "best"))
        found = paired_difference(best, default, member, _REPLICATES, 0)
        low, high = found.interval or (np.nan, np.nan)
        yield (
            f"| {name} | {default():.3f} | {best():.3f} | {found.value:+.3f} |"
            f" {low:+.3f} to {high:+.3f} |"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.tuning", description=__doc__)
    parser.add_argument(
        "--cache", type=Path, required=True, metavar="FOLDER", help="where features are kept"
    )
    parser.add_argument("--trials", type=int, default=100, metavar="N", help="of each search")
    parser.add_argument("--monitor", default="val_select/nll", metavar="METRIC")
    return parser.parse_args()


if __name__ == "__main__":
    main()
