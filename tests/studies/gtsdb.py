"""Study of tiles for small roadwork on real roads: `python -m tests.studies.gtsdb --cache FOLDER`.

Leave-one-day-out over six recording days: AUROC and AP with 95 % intervals over places, paired
differences against the whole image at 224 pixels, early exit, and the time of each row. On two
cores without bf16 units features take about an hour the first time and are kept in FOLDER; the rest
takes about ten minutes.

Every `--backbone NAME=FOLDER` adds the rows of another backbone, such as one adapted by
pretrain_explora or by LoRA; `{day}` in FOLDER stands for the day left out, for backbones that were
adapted to the others. `--margins NAME=FILE` adds the row of a model that was trained elsewhere;
`python -m tests.studies.gtsdb_adapted` makes both.
"""

import argparse
import dataclasses
import functools
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.ingest_dataset.sources.records import Record
from components.shared.stats.bootstrap import intervals, membership, paired_difference
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import auroc, average_precision
from components.shared.vision.view_spec import ViewSpec
from tests.studies import heads
from tests.studies.early_exit import early_exit_table
from tests.studies.features import Features, Regime, features, labelled_records

SHARED = Path(__file__).resolve().parents[3] / "shared"
VIEWS = ViewSpec(
    # Tiles of 40 % of width and height.
    grid=3,
    overlap=0.25,
    flips=False,
    size=224,
    aggregation="max",
    top_k=3,
    sharpness=1.0,
    positive_class="Roadwork",
)
# At 518 an image costs about what ten views at 224 do.
WHOLE, LARGER, LARGEST, PARTS = Regime(224), Regime(448), Regime(518), Regime(672, VIEWS)
AGGREGATIONS: dict[str, dict[str, Any]] = {
    "maximum": {"aggregation": "max"},
    "mean of the top 3": {"aggregation": "topk_mean"},
    "mean of all": {"aggregation": "topk_mean", "top_k": 10},
    "log-sum-exp, r = 1": {"aggregation": "lse"},
    "noisy-or": {"aggregation": "noisy_or"},
    "attention": {"aggregation": "attention"},
}
_REPLICATES = 2000
METRICS = {"AUROC": auroc, "AP": average_precision}
# Seconds of the features, and of the heads with reading them; None where others measured them.
Scored = tuple[heads.Scores, float | None, float | None]
TARGETS = ("all positives", "visible equipment")


@dataclass(frozen=True)
class Row:
    """One way to score images: how they are seen, and what is trained on that."""

    name: str
    regime: Regime
    head: heads.Head


@dataclass(frozen=True)
class Data:
    """The images of one target: rows of the records, truth (N,), day and place of each."""

    kept: npt.NDArray[np.int64]
    truth: npt.NDArray[np.bool_]
    days: npt.NDArray[np.str_]
    places: tuple[str, ...]

    @classmethod
    def of(cls, records: list[Record], target: str) -> "Data":
        """For visible equipment, positives known by a sign alone are left out."""
        device = target == "visible equipment"
        kept = [
            i
            for i, r in enumerate(records)
            if r.label == "None" or not device or "device" in r.attributes["evidence"]
        ]
        chosen = [records[i] for i in kept]
        return cls(
            np.array(kept),
            np.array([r.label == "Roadwork" for r in chosen]),
            np.array([r.attributes["recording_day"] for r in chosen]),
            tuple(r.group for r in chosen),
        )


def rows() -> Iterator[Row]:
    """Those of one backbone; the first is what the others are compared with."""
    yield Row("whole image, 224", WHOLE, heads.loop_head(None))
    yield Row(
        "whole image, 224, logistic regression", WHOLE, heads.logistic_regression(lambda x: x[:, 0])
    )
    yield Row("whole image, 448", LARGER, heads.loop_head(None))
    yield Row("whole image, 518", LARGEST, heads.loop_head(None))
    for name, fields in AGGREGATIONS.items():
        yield Row(f"10 views, {name}", PARTS, heads.loop_head(dataclasses.replace(VIEWS, **fields)))
    yield Row(
        "9 tiles, mean features, logistic regression",
        PARTS,
        heads.logistic_regression(lambda x: x[:, 1:].mean(1)),
    )
    yield Row(
        "9 tiles, largest features, logistic regression",
        PARTS,
        heads.logistic_regression(lambda x: x[:, 1:].max(1)),
    )


def main() -> None:
    """Print one Markdown table for each target, and one about early exit."""
    parsed = _arguments()
    records = labelled_records(parsed.data)
    for target in TARGETS:
        data = Data.of(records, target)
        with heads.alone():
            found = dict(_measured(records, data, target, parsed))
        print(f"\n### {target}: {int(data.truth.sum())} of {len(data.truth)} images\n")
        print("\n".join(_table(data, found)), flush=True)
        print(f"\n### {target}: early exit\n")
        scores = {name: scores for name, (scores, _, _) in found.items()}
        print("\n".join(early_exit_table(data.truth, data.days, data.places, scores)), flush=True)


def _measured(
    records: list[Record], data: Data, target: str, parsed: argparse.Namespace
) -> Iterator[tuple[str, Scored]]:
    for name, folder in [part.split("=", 1) for part in parsed.backbone]:
        for number, row in enumerate(rows()):
            if number and not re.search(parsed.only, row.name):
                continue
            label = row.name if name == "frozen" else f"{name}: {row.name}"
            load = functools.lru_cache(maxsize=1)(
                partial(
                    features,
                    records,
                    regime=row.regime,
                    cache=parsed.cache,
                    precision=parsed.precision,
                )
            )
            scored = _scored(row, data, folder, load)
            print(
                f"  {target}: {label}: AUROC {auroc(data.truth, scored[0].margin):.3f}",
                file=sys.stderr,
                flush=True,
            )
            yield label, scored
    for name, file in [part.split("=", 1) for part in parsed.margins]:
        yield name, (heads.Scores(np.load(file, allow_pickle=False)[data.kept]), None, None)


def _scored(row: Row, data: Data, folder: str, load: Callable[[Path], Features]) -> Scored:
    seconds = 0.0

    def values(day: str) -> npt.NDArray[np.float32]:
        nonlocal seconds
        found = load(Path(folder.format(day=day)))
        seconds = found.seconds
        return found.values[data.kept]

    started = time.perf_counter()
    scores = heads.leave_one_day_out(values, data.truth, data.days, row.head)
    return scores, seconds, time.perf_counter() - started


def _table(data: Data, found: dict[str, Scored]) -> Iterator[str]:
    head = [f"{m} | 95 % | difference | 95 %" for m in METRICS]
    yield f"| input and aggregation | {' | '.join(head)} | features, s | heads, s |"
    yield "|---" * (3 + 4 * len(METRICS)) + "|"
    member, base = membership(data.places, len(data.places)), next(iter(found.values()))[0].margin
    for name, (scores, features_seconds, head_seconds) in found.items():
        cells = []
        for metric in METRICS.values():
            ours, theirs = (
                partial(metric, data.truth, scores.margin),
                partial(metric, data.truth, base),
            )
            found_interval = intervals({"": ours}, data.places, _REPLICATES, 0, {"": Scale.UNIT})[
                ""
            ]
            low, high = found_interval or (np.nan, np.nan)
            cells += [f"{ours():.3f}", f"{low:.3f} to {high:.3f}"]
            if scores.margin is base:
                cells += ["", ""]
                continue
            difference = paired_difference(ours, theirs, member, _REPLICATES, 0)
            low, high = difference.interval or (np.nan, np.nan)
            cells += [f"{difference.value:+.3f}", f"{low:+.3f} to {high:+.3f}"]
        times = [
            "" if seconds is None else f"{seconds:.0f}"
            for seconds in (features_seconds, head_seconds)
        ]
        yield f"| {name} | {' | '.join([*cells, *times])} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.gtsdb", description=__doc__)
    parser.add_argument(
        "--cache", type=Path, required=True, metavar="FOLDER", help="where features are kept"
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data/gtsdb", metavar="FOLDER")
    parser.add_argument(
        "--backbone",
        action="append",
        metavar="NAME=FOLDER",
        help="instead of frozen=<the DINOv2-S beside the project>",
    )
    parser.add_argument(
        "--margins",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="margins.npy of models trained elsewhere",
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="bf16", help="of the features"
    )
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="the first row, and those whose name matches"
    )
    parsed = parser.parse_args()
    parsed.backbone = parsed.backbone or [f"frozen={SHARED / 'weights/dinov2-small-imgfocus'}"]
    return parsed


if __name__ == "__main__":
    main()
