"""Assigns every sample to one of four splits by a salted hash of its group."""

import csv
import difflib
from pathlib import Path

import numpy as np

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.data.dataset import Dataset
from components.shared.data.splits import SPLITS, audit
from components.shared.data.train_images import write_train_images
from components.shared.data.train_labels import write_train_labels
from components.split_dataset.balance import Counts, Groups, best_salt, refuse_missing, text_table
from components.split_dataset.config import SplitConfig

STEP = "split_dataset"


def run(
    config: SplitConfig,
    *,
    dataset: InputDir,
    splits: OutputDir,
    train_images: OutputDir | None = None,
    train_labels: OutputDir | None = None,
) -> None:
    """Choose the salt, assign, audit, and write splits.csv, split.json, summary.csv and splits.png.

    Args:
        config: fractions, salt, limits and held-out values.
        dataset: the ImageDataset.
        splits: folder of the Splits artifact.
        train_images: folder for the pixels of TRAIN, for training without labels.
        train_labels: folder for the labels of TRAIN.

    Raises:
        DataError: a split has too few samples of a class.
        ConfigError: a column or value to hold out is unknown.
        LeakageViolationError: the audit fails.
    """
    data = Dataset.open(dataset)
    held_out = _held_out_groups(config, data)
    group_by_id = {sample.sample_id: sample.group for sample in data.samples}
    labels = [sample.label for sample in data.samples]
    groups = Groups.of(list(group_by_id.values()), labels, len(data.class_names), held_out)

    salt = config.salt or best_salt(groups, config.fractions, config.seed, config.n_salts)
    split_of_group = groups.splits(salt, config.fractions)
    counts = groups.counts(split_of_group)
    refuse_missing(counts, data.class_names, config.min_per_class, salt)

    named = dict(zip(groups.names, split_of_group.tolist(), strict=True))
    split_by_id = {sample_id: SPLITS[named[group]] for sample_id, group in group_by_id.items()}
    audit(split_by_id, group_by_id, data.duplicate_pairs())
    print(text_table(counts, data.class_names))

    summary = {"salt": salt, "counts": dict(zip(SPLITS, counts.tolist(), strict=True))}
    inputs = {"dataset": data.manifest}
    with writing(
        splits, kind=Kind.SPLITS, step=STEP, config=config, inputs=inputs, summary=summary
    ) as out:
        _write_tables(out, data, split_by_id, counts)
        write_json(out / "split.json", _split_document(config, data, counts, salt, held_out))
        _plot(out / "splits.png", counts, data.class_names)

    ids = [sample_id for sample_id, split in split_by_id.items() if split == "TRAIN"]
    if train_images is not None:
        _write_train_images(train_images, config, data, ids)
    if train_labels is not None:
        _write_train_labels(train_labels, config, data, ids)


def _write_train_images(path: Path, config: SplitConfig, data: Dataset, ids: list[str]) -> None:
    """Write the pixels of TRAIN."""
    kind, inputs = Kind.TRAIN_IMAGES, {"dataset": data.manifest}
    with writing(
        path, kind=kind, step=STEP, config=config, inputs=inputs, split=kind.data_split
    ) as out:
        write_train_images(out, data, ids)


def _write_train_labels(path: Path, config: SplitConfig, data: Dataset, ids: list[str]) -> None:
    """Write the labels of TRAIN."""
    kind, inputs = Kind.TRAIN_LABELS, {"dataset": data.manifest}
    with writing(
        path, kind=kind, step=STEP, config=config, inputs=inputs, split=kind.data_split
    ) as out:
        write_train_labels(out, data, ids)


def _held_out_groups(config: SplitConfig, data: Dataset) -> set[str]:
    """Return the groups with a sample that has a held-out value; they go to VAL_TEST as a whole.

    Raises ConfigError for an unknown column or value.
    """
    if not config.holdout_column:
        return set()

    columns = sorted({name for sample in data.samples for name in sample.attributes})
    if config.holdout_column not in columns:
        close = difflib.get_close_matches(config.holdout_column, columns, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"holdout_column={config.holdout_column!r} is not in the data; {hint}columns: {columns}"
        )

    value_of = [sample.attributes.get(config.holdout_column, "") for sample in data.samples]
    unknown = sorted(set(config.holdout_values) - set(value_of))
    if unknown:
        known = sorted(set(value_of))[:20]
        raise ConfigError(
            f"holdout_values={unknown} do not occur in {config.holdout_column!r}, which has {known}"
        )

    return {
        sample.group
        for sample, value in zip(data.samples, value_of, strict=True)
        if value in config.holdout_values
    }


def _split_document(
    config: SplitConfig, data: Dataset, counts: Counts, salt: str, held_out: set[str]
) -> dict[str, object]:
    per_class = {
        split: dict(zip(data.class_names, row, strict=True))
        for split, row in zip(SPLITS, counts.tolist(), strict=True)
    }
    return {
        "salt": salt,
        "shares": config.fractions,
        "counts": per_class,
        "holdout_column": config.holdout_column,
        "holdout_values": list(config.holdout_values),
        "held_out_groups": sorted(held_out),
    }


def _write_tables(out: Path, data: Dataset, split_by_id: dict[str, str], counts: Counts) -> None:
    with (out / "splits.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["sample_id", "split", "group"])
        writer.writerows((s.sample_id, split_by_id[s.sample_id], s.group) for s in data.samples)

    n_groups = {
        split: len({s.group for s in data.samples if split_by_id[s.sample_id] == split})
        for split in SPLITS
    }

    with (out / "summary.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["split", *data.class_names, "all", "groups"])
        for split, row in zip(SPLITS, counts.tolist(), strict=True):
            writer.writerow([split, *row, sum(row), n_groups[split]])


def _plot(path: Path, counts: Counts, class_names: tuple[str, ...]) -> None:
    """Draw the fraction of every split in every class: equal bars mean a balanced split."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(class_names)

    for column, name in enumerate(class_names):
        offset = (column - (len(class_names) - 1) / 2) * width
        fraction = counts[:, column] / max(counts[:, column].sum(), 1)
        bars = axes.bar(np.arange(len(SPLITS)) + offset, fraction, width, label=name)
        axes.bar_label(bars, labels=[str(n) for n in counts[:, column]], fontsize=8)

    axes.set_xticks(range(len(SPLITS)), SPLITS)
    axes.set_ylabel("fraction of the class")
    axes.margins(y=0.12)
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main(run, SplitConfig)
