"""Checks and stores the user's images, finds duplicates, and maps labels to classes."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.ingest_dataset.check import Checked, PixelFile, check_all
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.grouping import Pair, near_duplicates, united_groups, without_copies
from components.ingest_dataset.sources.labels import Labelling, label_sources
from components.ingest_dataset.sources.open import open_source
from components.ingest_dataset.sources.records import Label, Source
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import working, writing
from components.shared.contracts.errors import ConfigError, DataError
from components.shared.contracts.listing import first_of, say
from components.shared.contracts.step import OutputDir, main
from components.shared.contracts.tables import write_table
from components.shared.data.dataset import Sample, write_header, write_samples, write_shards

_NAMED = 20
_PRINTED_LABELS = 200  # a table of classes to look at, of any real task all of them
_DUPLICATE_COLUMNS = ("sample_id", "source", "path", "label")


def run(config: IngestConfig, *, dataset: OutputDir) -> None:
    """Read all sources, check every image, group duplicates, write the ImageDataset.

    The pixels need disk space twice (0.3 MB an image at 224), but not memory.

    Raises:
        ConfigError: `data` is not set.
        DataError: a table is wrong, a label has no class, or more than `max_reject_fraction` of the
            files are unusable; DATASET.rejects.csv beside the output then lists them all.
    """
    if not config.data:
        raise ConfigError(
            "data='' is not set; give a folder with a CSV, a Parquet file or folder, a folder with"
            " one folder per class, or an s3:// address"
        )

    # All tables are checked before the first image is decoded.
    sources = [open_source(source) for source in config.sources()]
    labelling = label_sources(sources, config.class_names)
    labels = _label_rows(sources, labelling)
    _print_labels(labels, labelling)

    with working(dataset) as scratch:
        pixels = PixelFile(scratch / "pixels", config.image_size)
        try:
            checked = check_all(config, sources, labelling, pixels)
        finally:
            pixels.close()

        rejected = [item for item in checked if item.reason]
        _refuse_too_many(config, len(checked), rejected, dataset)
        unique, exact = without_copies([item for item in checked if not item.reason])
        near = near_duplicates(unique, config.near_duplicate_distance)
        groups = united_groups(unique, exact, near)

        rows = sorted(zip(unique, groups, strict=True), key=lambda row: row[0].sha256)
        samples = [_sample(labelling.class_names, item, group) for item, group in rows]
        summary = _summary(labelling.class_names, samples, rejected, exact, near)
        summary["labels"] = labels
        with writing(
            dataset, kind=Kind.IMAGE_DATASET, step="ingest_dataset", config=config, summary=summary
        ) as out:
            write_header(out, labelling.class_names, config.image_size)
            write_samples(out, samples)
            stored = pixels.read()
            write_shards(
                out, (stored[item.position] for item, _ in rows), len(rows), config.image_size
            )
            _write_rejects(out / "rejects.csv", rejected)
            _write_duplicates(out / "duplicates.csv", [*exact, *near])

    _report(summary, rejected, [*exact, *near])


def _label_rows(sources: Sequence[Source], labelling: Labelling) -> list[dict[str, object]]:
    """Return label, class and number of rows for every label of every source, for the manifest."""
    return [
        {"source": source.name, "label": str(label), "class": name, "count": count[label]}
        for source, classes, count in zip(
            sources, labelling.of_sources, labelling.counts, strict=True
        )
        for label, name in sorted(
            classes.items(), key=lambda entry: _class_order(labelling.class_names, entry)
        )
    ]


def _class_order(class_names: Sequence[str], entry: tuple[Label, str]) -> tuple[int, Label]:
    """Sort key: by class, the excluded labels last."""
    label, name = entry
    return class_names.index(name) if name in class_names else len(class_names), label


def _print_labels(rows: Sequence[Mapping[str, object]], labelling: Labelling) -> None:
    """Print the classes and where they come from, and label -> class: count for every source."""
    named = (f"{index} {name}" for index, name in enumerate(labelling.class_names))
    names = first_of(named, most=_PRINTED_LABELS)
    say(f"classes (from {labelling.origin}): {names}")
    for source, of_source in itertools.groupby(rows, key=lambda row: row["source"]):
        say(f"labels of {source}:")
        listed = list(of_source)
        for row in listed[:_PRINTED_LABELS]:
            say(f"  {row['label']} -> {row['class']}: {row['count']}")
        if len(listed) > _PRINTED_LABELS:
            say(f"  and {len(listed) - _PRINTED_LABELS} more, in the summary of manifest.json")


def _refuse_too_many(
    config: IngestConfig, total: int, rejected: Sequence[Checked], dataset: Path
) -> None:
    """Raise DataError where more than `max_reject_fraction` of the files are unusable, or all.

    No artifact is written then, so the table of all rejected files is written beside it.
    """
    table = dataset.with_name(f"{dataset.name}.rejects.csv")
    table.unlink(missing_ok=True)
    if len(rejected) <= config.max_reject_fraction * total and len(rejected) < total:
        return

    _write_rejects(table, rejected)
    raise DataError(
        f"{len(rejected)} of {total} images are unusable, more than"
        f" max_reject_fraction={config.max_reject_fraction}; repair or remove them, or increase it:"
        f" {_reasons(rejected)} (all of them: {table})"
    )


def _reasons(rejected: Sequence[Checked]) -> str:
    """Return the reasons in words, the most frequent first, with some twenty files in all."""
    files: dict[str, list[str]] = {}
    for item in rejected:
        files.setdefault(item.reason, []).append(f"{item.source}/{item.path}")

    most = max(_NAMED // len(files), 1)
    by_count = sorted(files.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return first_of(
        (f"{reason}: {first_of(names, most=most)}" for reason, names in by_count),
        most=_NAMED,
        separator="; ",
    )


def _sample(class_names: Sequence[str], item: Checked, group: str) -> Sample:
    return Sample(
        sample_id=item.sha256[:16],
        label=class_names.index(item.label),
        group=group,
        source=item.source,
        path=item.path,
        sha256=item.sha256,
        attributes=item.attributes,
    )


def _summary(
    class_names: Sequence[str],
    samples: Sequence[Sample],
    rejected: Sequence[Checked],
    exact: list[Pair],
    near: list[Pair],
) -> dict[str, object]:
    """Return the counts for the manifest."""
    labels = [sample.label for sample in samples]
    of_samples = [sample.source for sample in samples]
    sources = sorted(set(of_samples))

    return {
        "n_samples": len(samples),
        "n_groups": len({sample.group for sample in samples}),
        "n_per_class": {name: labels.count(index) for index, name in enumerate(class_names)},
        "n_per_source": {name: of_samples.count(name) for name in sources},
        "n_rejected": len(rejected),
        "n_exact_duplicates": len(exact),
        "n_near_duplicate_pairs": len(near),
        "n_label_conflicts": sum(pair.conflict for pair in [*exact, *near]),
        "sources": sources,
    }


def _write_rejects(path: Path, rejected: Sequence[Checked]) -> None:
    rows = ((item.source, item.path, item.reason) for item in rejected)
    write_table(path, ["source", "path", "reason"], rows, for_people=True)


def _write_duplicates(path: Path, pairs: Sequence[Pair]) -> None:
    rows = []
    for pair in pairs:
        first, second = (
            (item.sha256[:16], item.source, item.path, item.label)
            for item in (pair.first, pair.second)
        )
        rows.append([pair.kind, pair.distance, int(pair.conflict), *first, *second])

    sides = [f"{column}_{side}" for side in ("a", "b") for column in _DUPLICATE_COLUMNS]
    write_table(path, ["kind", "distance", "label_conflict", *sides], rows, for_people=True)


def _report(summary: dict[str, object], rejected: Sequence[Checked], pairs: Sequence[Pair]) -> None:
    """Print the counts, the rejects and the duplicates with different labels."""
    say(
        f"{summary['n_samples']} samples in {summary['n_groups']} groups, {summary['n_per_class']};"
        f" {summary['n_rejected']} rejected, {summary['n_exact_duplicates']} exact copies,"
        f" {summary['n_near_duplicate_pairs']} near-duplicate pairs, {summary['n_label_conflicts']}"
        " label conflicts"
    )

    lines = [f"rejected {item.source}/{item.path}: {item.reason}" for item in rejected]
    for pair in pairs:
        if pair.conflict:
            sides = " and ".join(
                f"{i.source}/{i.path} ({i.label})" for i in (pair.first, pair.second)
            )
            left_out = ", both left out" if pair.kind == "exact" else ""
            lines.append(f"{pair.kind} duplicates with different labels{left_out}: {sides}")

    for line in lines[:_NAMED]:
        say(f"  {line}")
    if len(lines) > _NAMED:
        say(f"  and {len(lines) - _NAMED} more, in rejects.csv and duplicates.csv")


if __name__ == "__main__":
    main(run, IngestConfig)
