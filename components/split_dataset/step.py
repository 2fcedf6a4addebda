"""Phase 0: which samples may training, selection, calibration and the final test see?"""

import csv
import difflib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.shared.artifacts import write_json, writing
from components.shared.data.dataset import Dataset
from components.shared.data.splits import KIND, SPLITS, audit, split_of
from components.shared.errors import ConfigError, DataError
from components.shared.step import InputDir, OutputDir, main
from components.split_dataset.config import SplitConfig

Counts = npt.NDArray[np.int64]


def run(config: SplitConfig, *, dataset: InputDir, splits: OutputDir) -> None:
    """Choose the salt, assign, audit, and write splits.csv, split.json, summary.csv and splits.png."""
    data = Dataset.open(dataset)
    groups = [sample.group for sample in data.samples]
    labels = np.array([sample.label for sample in data.samples], dtype=np.int64)
    held_out = _held_out_groups(config, data)
    salt = config.salt or _best_salt(config, groups, labels, held_out, len(data.class_names))
    assignment = _assign(config, groups, held_out, salt)
    counts = _count(assignment, labels, len(data.class_names))
    _refuse_missing(config, counts, data.class_names)
    ids = [sample.sample_id for sample in data.samples]
    split_by_id = dict(zip(ids, assignment, strict=True))
    audit(split_by_id, dict(zip(ids, groups, strict=True)), _duplicate_pairs(dataset, data))
    print(_table(counts, data.class_names))
    summary = {"salt": salt, "counts": dict(zip(SPLITS, counts.tolist(), strict=True))}
    inputs = {"dataset": data.manifest}
    with writing(splits, kind=KIND, step="split_dataset", config=config, inputs=inputs, summary=summary) as out:
        _write(out, data, split_by_id, counts, salt, held_out)


def _held_out_groups(config: SplitConfig, data: Dataset) -> set[str]:
    """Groups with at least one sample that has a held-out value; they go to VAL_TEST as a whole."""
    if not config.holdout_column:
        return set()
    columns = sorted({name for sample in data.samples for name in sample.attributes})
    if config.holdout_column not in columns:
        close = difflib.get_close_matches(config.holdout_column, columns, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"holdout_column={config.holdout_column!r} is not in the data; {hint}columns: {columns}")
    values = {sample.attributes.get(config.holdout_column, "") for sample in data.samples}
    unknown = sorted(set(config.holdout_values) - values)
    if unknown:
        raise ConfigError(f"holdout_values={unknown} do not occur in {config.holdout_column!r}: {sorted(values)[:20]}")
    chosen = set(config.holdout_values)
    return {sample.group for sample in data.samples if sample.attributes.get(config.holdout_column, "") in chosen}


def _assign(config: SplitConfig, groups: list[str], held_out: set[str], salt: str) -> list[str]:
    shares = dict(config.shares)
    if config.holdout_column:
        del shares["VAL_TEST"]
    of_group = {group: "VAL_TEST" if group in held_out else split_of(salt, group, shares) for group in set(groups)}
    return [of_group[group] for group in groups]


def _best_salt(config: SplitConfig, groups: list[str], labels: Counts, held_out: set[str], n_classes: int) -> str:
    """The candidate whose counts per split and class are closest to the shares (sum of squared relative errors)."""
    wanted = np.array([config.shares[split] for split in SPLITS])[:, None] * np.bincount(labels, minlength=n_classes)
    best, best_error = "", np.inf
    for index in range(config.n_salts):
        salt = f"{config.seed}-{index}"
        counts = _count(_assign(config, groups, held_out, salt), labels, n_classes)
        error = float((((counts - wanted) / np.maximum(wanted, 1)) ** 2).sum())
        if error < best_error:
            best, best_error = salt, error
    return best


def _count(assignment: list[str], labels: Counts, n_classes: int) -> Counts:
    """(4, K) samples per split and class."""
    counts = np.zeros((len(SPLITS), n_classes), dtype=np.int64)
    np.add.at(counts, (np.array([SPLITS.index(split) for split in assignment]), labels), 1)
    return counts


def _refuse_missing(config: SplitConfig, counts: Counts, class_names: tuple[str, ...]) -> None:
    missing = [
        f"{split} has {counts[row, column]} of class {name}"
        for row, split in enumerate(SPLITS)
        for column, name in enumerate(class_names)
        if counts[row, column] < config.min_per_class
    ]
    if missing:
        raise DataError(
            f"min_per_class={config.min_per_class} cannot be met: " + "; ".join(missing)
            + "; add data or groups, change the shares, or lower min_per_class"
        )  # fmt: skip


def _duplicate_pairs(dataset: Path, data: Dataset) -> list[tuple[str, str]]:
    """Pairs from the ingest's duplicates.csv whose both sides are in the dataset."""
    with (dataset / "duplicates.csv").open(newline="", encoding="utf-8") as stream:
        pairs = [(row["id_a"], row["id_b"]) for row in csv.DictReader(stream)]
    return [pair for pair in pairs if pair[0] in data.index and pair[1] in data.index]


def _table(counts: Counts, class_names: tuple[str, ...]) -> str:
    lines = [f"{'split':12}" + "".join(f"{name:>12}" for name in class_names) + f"{'all':>12}{'share':>9}"]
    for split, row in zip(SPLITS, counts, strict=True):
        share = row.sum() / counts.sum()
        lines.append(f"{split:12}" + "".join(f"{n:>12}" for n in row) + f"{row.sum():>12}{share:>9.1%}")
    return "\n".join(lines)


def _write(
    out: Path, data: Dataset, split_by_id: dict[str, str], counts: Counts, salt: str, held_out: set[str]
) -> None:
    with (out / "splits.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["sample_id", "split", "group"])
        writer.writerows((s.sample_id, split_by_id[s.sample_id], s.group) for s in data.samples)
    with (out / "summary.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["split", *data.class_names])
        writer.writerows([split, *row] for split, row in zip(SPLITS, counts.tolist(), strict=True))
    write_json(out / "split.json", {"salt": salt, "held_out_groups": sorted(held_out), "splits": list(SPLITS)})
    _plot(out / "splits.png", counts, data.class_names)


def _plot(path: Path, counts: Counts, class_names: tuple[str, ...]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    bottom = np.zeros(len(SPLITS))
    for column, name in enumerate(class_names):
        bars = axes.barh(SPLITS, counts[:, column], left=bottom, label=name)
        axes.bar_label(bars, label_type="center", fontsize=8)
        bottom += counts[:, column]
    axes.invert_yaxis()
    axes.set_xlabel("samples")
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main(run, SplitConfig)
