"""Assigns every sample to one of four splits: as recorded, and new groups stratified by class.

Pixels and labels of TRAIN are copied only in pipelines compiled with `--pretrain`, whose extended
pre-training may see nothing else: they are most of the data set. A pipeline with `--pretrain` and
one without therefore run this step once each; both get the same splits, by the lineage's record.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.errors import ConfigError, LeakageViolationError
from components.shared.contracts.listing import first_of, say
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.contracts.tables import write_table
from components.shared.data.dataset import Dataset, Sample
from components.shared.data.lineage import Recorded
from components.shared.data.splits import EXCLUDED, SPLITS, audit
from components.shared.data.train_images import write_train_images
from components.shared.data.train_labels import write_train_labels
from components.shared.stats.group_needs import Need
from components.split_dataset.balance import (
    Assignment,
    Counts,
    Groups,
    Limits,
    best_assignment,
    hashed,
    refuse_missing,
    text_table,
)
from components.split_dataset.config import SplitConfig
from components.split_dataset.earlier import Earlier, earlier_splits
from components.split_dataset.needs import default_needs, printed
from components.split_dataset.record import Record

STEP = "split_dataset"
_FEW_GROUPS = 0.05  # distance of an achieved from the wanted fraction that is worth a line
_TALLEST = 40  # inches, of the picture of hundreds of classes


@dataclass(frozen=True)
class _Result:
    """The finished split: splits of all samples, and what is counted in them."""

    data: Dataset
    split_by_id: dict[str, str]
    salt: str
    counts: Counts
    group_counts: Counts
    n_groups: dict[str, int]
    needs: list[Need]
    held_out: set[str]
    excluded: dict[str, tuple[str, ...]]
    n_kept: int


def run(
    config: SplitConfig,
    *,
    dataset: InputDir,
    splits: OutputDir,
    train_images: OutputDir | None = None,
    train_labels: OutputDir | None = None,
) -> None:
    """Assign every sample to a split, audit, write the artifacts and record the lineage.

    splits.csv has the split of every sample, excluded.csv the samples that no split can take,
    summary.csv the counts, policy_needs.json what later phases need, split.json all else.

    Args:
        config: fractions, lineage, salt, limits and held-out values.
        dataset: the ImageDataset.
        splits: folder of the Splits artifact.
        train_images: folder for the pixels of TRAIN, for training without labels; None: no copy.
        train_labels: folder for the labels of TRAIN; None: no copy.

    Raises:
        DataError: a split has too few samples or groups of a class.
        ConfigError: a column or value to hold out is unknown, or contradicts the lineage.
        LeakageViolationError: the audit fails.
        LineageConflictError: another run of the lineage was faster.
    """
    data = Dataset.open(dataset)
    record = Record.of(config, data)
    result = _split(config, data, record)
    _print(config, result, record)

    summary = {
        "salt": result.salt,
        "counts": dict(zip(SPLITS, result.counts.tolist(), strict=True)),
        "n_excluded": len(result.excluded),
        "n_kept": result.n_kept,
    }
    inputs = {"dataset": data.manifest}
    with writing(
        splits, kind=Kind.SPLITS, step=STEP, config=config, inputs=inputs, summary=summary
    ) as out:
        _write_tables(out, result)
        write_json(out / "split.json", _split_document(config, result))
        write_json(out / "policy_needs.json", [_need_document(need) for need in result.needs])
        _plot(out / "splits.png", result.counts, data.class_names)

    ids = [sample_id for sample_id, split in result.split_by_id.items() if split == "TRAIN"]
    if train_images is not None:
        _write_train_images(train_images, config, data, ids)
    if train_labels is not None:
        _write_train_labels(train_labels, config, data, ids)

    # Last: what is recorded exists.
    record.append(_new_rows(result), result.salt, result.n_groups)


def _split(config: SplitConfig, data: Dataset, record: Record) -> _Result:
    """Assign all groups that have no split yet, and audit the whole."""
    earlier = earlier_splits(data.samples, record.rows)
    held_out = _held_out_groups(config, data)
    _refuse_moved(config, earlier, held_out)

    kept = [sample for sample in data.samples if sample.sample_id in earlier.group_of]
    groups = Groups.of(
        [earlier.group_of[sample.sample_id] for sample in kept],
        [sample.label for sample in kept],
        len(data.class_names),
        held_out=held_out,
        earlier=earlier.split_of,
    )

    found = _assigned(config, groups, record.salt)
    limits = Limits(config.min_per_class, config.min_groups_per_class)
    n_tried = 1 if config.salt else config.n_salts
    refuse_missing(groups, found.splits, data.class_names, limits, n_tried)

    split_of_group = {
        name: SPLITS[split] for name, split in zip(groups.names, found.splits.tolist(), strict=True)
    }
    split_by_id = {
        sample.sample_id: split_of_group[earlier.group_of[sample.sample_id]] for sample in kept
    }
    _audit(config, data, earlier, split_by_id)

    group_counts = groups.group_counts(found.splits)
    n_groups = {split: int((found.splits == row).sum()) for row, split in enumerate(SPLITS)}
    return _Result(
        data=data,
        split_by_id=split_by_id | dict.fromkeys(earlier.excluded, EXCLUDED),
        salt=found.salt,
        counts=groups.counts(found.splits),
        group_counts=group_counts,
        n_groups=n_groups,
        needs=default_needs(data.class_names, group_counts, n_groups),
        held_out=held_out,
        excluded=earlier.excluded,
        n_kept=sum(sample.sample_id in record.before for sample in data.samples),
    )


def _assigned(config: SplitConfig, groups: Groups, recorded_salt: str) -> Assignment:
    """Assign by the given salt, by that of a recorded run of the same request, or by the best."""
    limits = Limits(config.min_per_class, config.min_groups_per_class)
    if config.salt:
        return hashed(groups, config.fractions, config.salt)
    found = best_assignment(
        groups, config.fractions, limits, config.seed, 1 if recorded_salt else config.n_salts
    )
    return Assignment(recorded_salt or found.salt, found.splits)


def _refuse_moved(config: SplitConfig, earlier: Earlier, held_out: set[str]) -> None:
    """Raise ConfigError where a group to hold out has another split by the lineage's record."""
    moved = sorted(
        group for group in held_out if earlier.split_of.get(group, "VAL_TEST") != "VAL_TEST"
    )
    if moved:
        raise ConfigError(
            f"holdout_values={list(config.holdout_values)}: {len(moved)} group(s) to hold out are"
            f" in another split by lineage {config.lineage!r}, such as {moved[0]!r}; name another"
            " lineage to start anew"
        )


def _audit(
    config: SplitConfig, data: Dataset, earlier: Earlier, split_by_id: dict[str, str]
) -> None:
    """Check groups, given groups and duplicates of all samples that are not excluded."""
    kept = [sample for sample in data.samples if sample.sample_id in split_by_id]
    given = _given_groups(data, kept)
    pairs = [
        (first, second)
        for first, second in data.duplicate_pairs()
        if first in split_by_id and second in split_by_id
    ]

    try:
        audit(split_by_id, earlier.group_of, pairs)
        audit(split_by_id, given, [])
    except LeakageViolationError as error:
        if not earlier.split_of:
            raise
        raise LeakageViolationError(
            f"{error}; lineage {config.lineage!r} has these from when the data did not connect"
            " them; name another lineage to start anew"
        ) from error


def _given_groups(data: Dataset, samples: list[Sample]) -> dict[str, str]:
    """Return sample id -> the group that the source gives, where all sources name it alike.

    Images with copies are left out: a copy may have another group.
    """
    copies = {first for first, second in data.duplicate_pairs() if first == second}
    ingest = data.manifest.config
    column = str(ingest.get("group_column", ""))
    if "group_column" in str(ingest.get("extra_sources", "")):
        return {}
    return {
        sample.sample_id: sample.attributes[column]
        for sample in samples
        if sample.attributes.get(column) and sample.sample_id not in copies
    }


def _new_rows(result: _Result) -> dict[str, Recorded]:
    """Return what the run would record of each sample that has a split."""
    return {
        sample.sample_id: Recorded(sample.group, result.split_by_id[sample.sample_id])
        for sample in result.data.samples
        if result.split_by_id[sample.sample_id] != EXCLUDED
    }


def _print(config: SplitConfig, result: _Result, record: Record) -> None:
    """Print the table, the lineage, the excluded samples, and what policies need."""
    say("images (groups) of each class")
    for line in text_table(result.counts, result.group_counts, result.data.class_names):
        say(line)

    of_all = result.counts.sum(axis=1) / result.counts.sum()
    wanted = np.array(list(config.fractions.values()))
    if not result.held_out and (np.abs(of_all - wanted) > _FEW_GROUPS).any():
        shares = ", ".join(f"{split} {value:.0%}" for split, value in config.fractions.items())
        say(f"the fractions asked for are {shares}: few or large groups, or earlier splits")

    say(record.line(result.n_kept, len(result.data.samples)))
    if result.excluded:
        say(
            f"{len(result.excluded)} new images are excluded: they connect groups of"
            " different splits; listed in excluded.csv"
        )
    for line in printed(result.needs, result.n_groups["VAL_CALIB"]):
        say(line)


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
            f"holdout_column={config.holdout_column!r} is not in the data; {hint}columns:"
            f" {first_of(columns)}"
        )

    value_of = [sample.attributes.get(config.holdout_column, "") for sample in data.samples]
    unknown = sorted(set(config.holdout_values) - set(value_of))
    if unknown:
        known = first_of(sorted(set(value_of)))
        raise ConfigError(
            f"holdout_values={unknown} do not occur in {config.holdout_column!r}, which has {known}"
        )

    return {
        sample.group
        for sample, value in zip(data.samples, value_of, strict=True)
        if value in config.holdout_values
    }


def _split_document(config: SplitConfig, result: _Result) -> dict[str, object]:
    per_class = {
        split: dict(zip(result.data.class_names, row, strict=True))
        for split, row in zip(SPLITS, result.counts.tolist(), strict=True)
    }
    return {
        "lineage": config.lineage,
        "salt": result.salt,
        "fractions": config.fractions,
        "counts": per_class,
        "n_excluded": len(result.excluded),
        "holdout_column": config.holdout_column,
        "holdout_values": list(config.holdout_values),
        "held_out_groups": sorted(result.held_out),
    }


def _need_document(need: Need) -> dict[str, object]:
    return {
        "purpose": need.purpose,
        "unit": need.unit,
        "needs": need.needs,
        "has": need.has,
        "met": need.met,
    }


def _write_tables(out: Path, result: _Result) -> None:
    samples, split_by_id = result.data.samples, result.split_by_id
    rows = ((s.sample_id, split_by_id[s.sample_id], s.group) for s in samples)
    write_table(out / "splits.csv", ["sample_id", "split", "group"], rows)

    excluded = (
        (s.sample_id, s.source, s.path, s.group, " ".join(result.excluded[s.sample_id]))
        for s in samples
        if s.sample_id in result.excluded
    )
    columns = ["sample_id", "source", "path", "group", "connects"]
    write_table(out / "excluded.csv", columns, excluded, for_people=True)

    names = result.data.class_names
    counts = zip(SPLITS, result.counts.tolist(), result.group_counts.tolist(), strict=True)
    summary = (
        [split, *row, sum(row), result.n_groups[split], *of_groups]
        for split, row, of_groups in counts
    )
    groups_of = [f"groups of {name}" for name in names]
    columns = ["split", *names, "all", "groups", *groups_of]
    write_table(out / "summary.csv", columns, summary, for_people=True)


def _plot(path: Path, counts: Counts, class_names: tuple[str, ...]) -> None:
    """Draw the fraction of every split in every class: aligned bars mean a balanced split."""
    from matplotlib.figure import Figure

    rows = np.arange(len(class_names))
    figure = Figure(figsize=(7, min(1 + 0.25 * len(rows), _TALLEST)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(rows))

    for split, of_class in zip(SPLITS, counts, strict=True):
        fraction = of_class / np.maximum(counts.sum(axis=0), 1)
        bars = axes.barh(rows, fraction, left=left, label=split)
        axes.bar_label(bars, labels=[str(n) for n in of_class], label_type="center", fontsize=8)
        left += fraction

    axes.set_yticks(rows, class_names)
    axes.invert_yaxis()
    axes.margins(x=0, y=0.01)
    axes.set_xlabel("fraction of the class")
    figure.legend(loc="outside upper center", ncols=len(SPLITS), frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main(run, SplitConfig)
