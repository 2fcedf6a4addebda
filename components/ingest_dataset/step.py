"""Checks and stores the user's images, finds duplicates, and maps labels to classes."""

from collections.abc import Sequence
from pathlib import Path

from components.ingest_dataset.check import checked_files
from components.ingest_dataset.chunks import Chunk, Description
from components.ingest_dataset.config import IngestConfig, PartConfig
from components.ingest_dataset.corrections import TABLE, Corrections, counts, write_corrections
from components.ingest_dataset.grouping import Pair, near_duplicates, united_groups, without_copies
from components.ingest_dataset.label_report import print_labels
from components.ingest_dataset.part import Header, checked_part, read_parts
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of, say
from components.shared.contracts.step import InputDirs, OutputDir, main
from components.shared.contracts.tables import write_table
from components.shared.data.dataset import Sample, write_header, write_samples, write_shards

_NAMED = 20
_DUPLICATE_COLUMNS = ("sample_id", "source", "path", "label")


def run(config: IngestConfig, *, dataset: OutputDir, parts: InputDirs = ()) -> None:
    """Read all sources, check every image, group duplicates, write the ImageDataset.

    Checked images are kept in chunks until the output is written, so that an attempt that starts
    again continues; the pixels need disk space twice (0.3 MB an image at 224), but not memory.

    Args:
        config: the options.
        dataset: the output.
        parts: the parts that `run_part` has checked, all of them. Without them this step checks
            every image itself; the output has the same bytes.

    Raises:
        ConfigError: `data` is not set.
        DataError: a table is wrong, a label has no class, `exclude` or `relabel` names an image
            that is not there, or more than `max_reject_fraction` of the files are unusable;
            DATASET.rejects.csv beside the output then lists them all.
        ArtifactError: the parts are not those of one listing and of these options.
    """
    if parts:
        header, chunks = read_parts(config, parts)
        print_labels(header.labels, header.class_names, header.origin)
        _write_dataset(config, header, chunks, dataset)
        return

    with checked_part(PartConfig.from_mapping(config.to_json()), dataset) as (header, paths):
        chunks = [Chunk.read(path, config.image_size) for path in paths]
        _write_dataset(config, header, chunks, dataset)


def _write_dataset(
    config: IngestConfig, header: Header, chunks: Sequence[Chunk], dataset: Path
) -> None:
    """Find the duplicates among all checked files, and write the ImageDataset."""
    as_given = checked_files(chunks)
    rejected = [item.description for item in as_given if item.description.reason]
    _refuse_too_many(config, len(as_given), rejected, dataset)

    corrections = Corrections.read(config)
    corrections.check_classes(header.class_names)
    checked = corrections.with_labels(as_given)
    applied = corrections.applied(as_given)

    unique, exact = without_copies([item for item in checked if not item.description.reason])
    near = near_duplicates(unique, config.near_duplicate_distance)
    groups = united_groups([item.description for item in unique], exact, near)

    # Left out after the groups are known, so that no other image gets another group.
    kept = [
        (item, group)
        for item, group in zip(unique, groups, strict=True)
        if item.description.sha256[:16] not in corrections.excluded
    ]
    rows = sorted(kept, key=lambda row: row[0].description.sha256)
    samples = [_sample(header.class_names, item.description, group) for item, group in rows]
    _refuse_emptied(header.class_names, samples, corrections)

    summary = _summary(header.class_names, samples, rejected, exact, near)
    is_corrected = bool(config.exclude or config.relabel)
    summary |= counts(applied) if is_corrected else {}
    summary["labels"] = header.labels
    with writing(
        dataset, kind=Kind.IMAGE_DATASET, step="ingest_dataset", config=config, summary=summary
    ) as out:
        write_header(out, tuple(header.class_names), config.image_size)
        write_samples(out, samples)
        images = (chunks[item.chunk].pixels[item.row] for item, _ in rows)
        write_shards(out, images, len(rows), config.image_size)
        _write_rejects(out / "rejects.csv", rejected)
        _write_duplicates(out / "duplicates.csv", [*exact, *near])
        if is_corrected:
            write_corrections(out / TABLE, applied)

    _report(summary, rejected, [*exact, *near])


def _refuse_too_many(
    config: IngestConfig, total: int, rejected: Sequence[Description], dataset: Path
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


def _refuse_emptied(
    class_names: Sequence[str], samples: Sequence[Sample], corrections: Corrections
) -> None:
    """Raise DataError where corrections left a class without an image."""
    found = {sample.label for sample in samples}
    missing = [name for number, name in enumerate(class_names) if number not in found]
    if missing and (corrections.excluded or corrections.relabelled):
        raise DataError(
            f"exclude and relabel leave no image of class {first_of(missing)}; remove rows of them,"
            " or leave the class out by label_map"
        )


def _reasons(rejected: Sequence[Description]) -> str:
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


def _sample(class_names: Sequence[str], item: Description, group: str) -> Sample:
    return Sample(
        sample_id=item.sha256[:16],
        label=class_names.index(item.label),
        group=group,
        source=item.source,
        path=item.path,
        sha256=item.sha256,
        attributes=item.attributes,
        brightness=item.brightness,
        sharpness=item.sharpness,
    )


def _summary(
    class_names: Sequence[str],
    samples: Sequence[Sample],
    rejected: Sequence[Description],
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


def _write_rejects(path: Path, rejected: Sequence[Description]) -> None:
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


def _report(
    summary: dict[str, object], rejected: Sequence[Description], pairs: Sequence[Pair]
) -> None:
    """Print the counts, the rejects and the duplicates with different labels."""
    say(
        f"{summary['n_samples']} samples in {summary['n_groups']} groups, {summary['n_per_class']};"
        f" {summary['n_rejected']} rejected, {summary['n_exact_duplicates']} exact copies,"
        f" {summary['n_near_duplicate_pairs']} near-duplicate pairs, {summary['n_label_conflicts']}"
        " label conflicts"
    )
    if "n_excluded" in summary:
        say(f"corrected: {summary['n_excluded']} excluded, {summary['n_relabelled']} relabelled")

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
