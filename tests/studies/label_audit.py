"""Study of the label audit on real roads: `python -m tests.studies.label_audit --cache FOLDER`.

A seed flips 5 % of the labels of GTSDB; the audit ranks all labels, and the table says how many of
the flips are among the most suspicious ones, beside a random order, and beside a random order of
the images of the rarest given class, where most flips of a rare class are. As a control of the
method, the same is done with the recording day as the class, which the backbone knows better than
roadwork. Intervals are Student's over seeds. Features are computed once and kept in FOLDER: some
minutes on two cores; the rest takes a minute.

`--report FOLDER` writes the step's artifact of the real labels there, with the gallery to look at.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from components.audit_labels.config import AuditLabelsConfig
from components.audit_labels.cross_fit import cross_fitted, folds_by_group
from components.audit_labels.findings import label_scores, suspects
from components.audit_labels.step import run as audit_labels
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.sources.records import Record
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import read_manifest, writing
from components.shared.data.dataset import Dataset
from components.shared.data.features import (
    SHARDS,
    FeatureRecipe,
    Features,
    rows_per_shard,
    shard_name,
    to_half,
    write_header,
)
from tests.studies.features import LABEL_MAP, Regime, features, labelled_records

SHARED = Path(__file__).resolve().parents[3] / "shared"
FLIPPED = 0.05
SEEDS = 10
_WHOLE = Regime(224)

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """Labels (N,) int64 of the images by one question, and the names of the classes."""

    name: str
    labels: Integers
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, name: str, values: list[str]) -> "Task":
        names = tuple(sorted(set(values)))
        return cls(name, np.array([names.index(value) for value in values]), names)


@dataclass(frozen=True)
class Found:
    """Of one seed: fractions by the name of the row."""

    precision: dict[str, float]
    recall: dict[str, float]
    n_flagged: int


def flipped(labels: Integers, n_classes: int, seed: int) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Return labels (N,) of which 5 % are another class, drawn by a seed, and which these are."""
    rng = np.random.default_rng(seed)
    is_flip = np.zeros(len(labels), dtype=np.bool_)
    is_flip[rng.choice(len(labels), round(FLIPPED * len(labels)), replace=False)] = True
    other = (labels + rng.integers(1, n_classes, len(labels))) % n_classes
    return np.where(is_flip, other, labels), is_flip


def searched(values: npt.NDArray[np.float32], task: Task, groups: list[str], seed: int) -> Found:
    """Flip labels by a seed, audit them, and count the flips among the most suspicious ones.

    Args:
        values: (N, F) features.
        task: The true labels.
        groups: (N,) group names.
        seed: Of flips and folds.
    """
    given, is_flip = flipped(task.labels, len(task.class_names), seed)
    folds = folds_by_group(given, groups, task.class_names, 5, seed)
    assert not isinstance(folds, str), folds
    fitted = cross_fitted(values, given, folds)

    n = int(is_flip.sum())
    order = np.argsort(label_scores(given, fitted.probabilities), kind="stable")
    tops = {f"top {share:g} n": order[: round(share * n)] for share in (0.5, 1, 2)}
    flagged = suspects(given, fitted.probabilities)
    tops["flagged (suspects.csv)"] = flagged

    counts = np.bincount(given)
    rarer = np.flatnonzero(given == counts.argmin())
    precision = {name: float(is_flip[rows].mean()) for name, rows in tops.items()}
    recall = {name: float(is_flip[rows].sum() / n) for name, rows in tops.items()}
    # Expectations of random orders, in closed form.
    precision["random, top n"] = recall["random, top n"] = n / len(given)
    drawn = min(n, len(rarer)) / len(rarer)
    precision["random of the rarest given class, top n"] = float(is_flip[rarer].mean())
    recall["random of the rarest given class, top n"] = float(is_flip[rarer].sum() * drawn / n)
    return Found(precision, recall, len(flagged))


def table(found: list[Found]) -> Iterator[str]:
    """Yield a Markdown table of means over seeds, with Student's 95 % intervals."""
    yield "| looked at | precision | 95 % | recall | 95 % |"
    yield "|---" * 5 + "|"
    for name in found[0].precision:
        cells = []
        for values in ([f.precision[name] for f in found], [f.recall[name] for f in found]):
            mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
            half = float(t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5
            cells += [f"{mean:.3f}", f"{mean - half:.3f} to {mean + half:.3f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def write_report(data: Path, values: npt.NDArray[np.float32], paths: list[str], out: Path) -> None:
    """Write the step's artifact of the real labels, through the phases' own code.

    Args:
        data: GTSDB.
        values: (N, F) features, here all of them of TRAIN but one image in ten.
        paths: (N,) of the images, in the order of the features.
        out: Where the artifact and its report come.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = IngestConfig(data=str(data), label_map=LABEL_MAP)
        ingest_dataset(config, dataset=root / "dataset")
        dataset = Dataset.open(root / "dataset")
        row_of = {path: row for row, path in enumerate(paths)}
        for split, folder in (("TRAIN", "train"), ("VAL_SELECT", "select")):
            ids = [
                sample.sample_id
                for number, sample in enumerate(dataset.samples)
                if (number % 10 == 0) == (split == "VAL_SELECT")
            ]
            rows = [row_of[dataset.samples[dataset.index[name]].path] for name in ids]
            _write_features(root / folder, split, ids, values[rows], root / "dataset")
        audit_labels(
            AuditLabelsConfig(),
            dataset=root / "dataset",
            train_features=root / "train",
            val_select_features=root / "select",
            audit=root / "audit",
            report=root / "report.html",
        )
        shutil.copytree(root / "audit", out, dirs_exist_ok=True)


def _write_features(
    path: Path, split: str, ids: list[str], values: npt.NDArray[np.float32], dataset: Path
) -> None:
    recipe = FeatureRecipe(1, "none", 0, "fp32")
    shape = (1, values.shape[1])
    size = rows_per_shard(shape)
    inputs = {"dataset": read_manifest(dataset), "backbone": "of the cache"}
    with writing(
        path,
        kind=Kind.features_of(split),
        step="extract_features",
        config=AuditLabelsConfig(),
        inputs=inputs,
        split=split,
    ) as out:
        (out / SHARDS).mkdir()
        for number, start in enumerate(range(0, len(ids), size)):
            part = to_half(values[start : start + size, None], split)
            np.save(out / SHARDS / shard_name(number), part, allow_pickle=False)
        write_header(out, split, Features(tuple(ids), shape, size, [], recipe))


def tasks(records: list[Record]) -> list[Task]:
    """Roadwork, and the recording day as a control."""
    roadwork = Task.of("Roadwork", [record.label for record in records])
    days = Task.of("recording day", [record.attributes["recording_day"] for record in records])
    return [roadwork, days]


def main() -> None:
    """Print one Markdown table for each task."""
    parsed = _arguments()
    records = labelled_records(parsed.data)
    found = features(records, parsed.backbone, _WHOLE, parsed.cache, precision="fp32").values[:, 0]
    values = found.astype(np.float16).astype(np.float32)  # as the artifact stores them
    groups = [record.group for record in records]

    for task in tasks(records):
        runs = [searched(values, task, groups, seed) for seed in range(parsed.seeds)]
        n = round(FLIPPED * len(records))
        flagged = np.mean([run.n_flagged for run in runs])
        print(
            f"\n### {task.name}: n = {n} of {len(records)} labels flipped, {parsed.seeds} seeds\n"
        )
        print("\n".join(table(runs)))
        print(f"\n{flagged:.0f} labels are flagged on average.", flush=True)

    if parsed.report is not None:
        write_report(parsed.data, values, [record.path for record in records], parsed.report)
        print(f"report: {parsed.report / 'report.html'}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.studies.label_audit", description=__doc__
    )
    parser.add_argument(
        "--cache", type=Path, required=True, metavar="FOLDER", help="where features are kept"
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data/gtsdb", metavar="FOLDER")
    parser.add_argument("--backbone", type=Path, default=SHARED / "weights/dinov2-small-imgfocus")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="draws of the flips")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="audit of the real labels")
    return parser.parse_args()


if __name__ == "__main__":
    main()
