"""Phase 0: which of the user's images are usable, which show the same picture, and under which label?"""

import csv
import hashlib
import itertools
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from components.ingest_dataset.config import IngestConfig
from components.shared.artifacts import writing
from components.shared.data import duplicates
from components.shared.data.dataset import KIND, Sample, write_samples, write_shards
from components.shared.data.decode import ImageRejectedError, decode, resize
from components.shared.data.sources import Record, SourceConfig, parse_sources, read_source
from components.shared.errors import ConfigError, DataError
from components.shared.progress import progress
from components.shared.step import OutputDir, main

_NAMED_REJECTS = 50
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class _Checked:
    """A decoded record. `reason` is set for rejects; the pixels wait in the scratch folder under the digest."""

    record: Record
    sha256: str
    reason: str
    phash: int


@dataclass(frozen=True)
class _Pair:
    """Two files showing the same picture."""

    kind: str
    first: _Checked
    second: _Checked
    distance: int

    @property
    def conflict(self) -> bool:
        return self.first.record.label != self.second.record.label


def run(config: IngestConfig, *, dataset: OutputDir) -> None:
    """Read all sources, check every image, group duplicates, write the ImageDataset.

    Raises DataError for wrong tables and when more than `max_reject_share` of the files are unusable.
    """
    if not config.data:
        raise ConfigError("data='' is not set; give a folder with a CSV, or a Parquet file or folder")
    dataset.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".ingest-", dir=dataset.parent))
    try:
        checked = sorted(_check_all(config, scratch), key=lambda item: (item.record.source, item.record.path))
        rejected = [item for item in checked if item.reason]
        _refuse_too_many(config, len(checked), rejected)
        usable = [item for item in checked if not item.reason]
        kept, exact = _without_copies(usable)
        near = _near_pairs(config, kept)
        samples = _samples(config, kept, exact, near)
        _report(samples, rejected, exact, near)
        summary = _summary(config, samples, rejected, exact, near)
        with writing(dataset, kind=KIND, step="ingest_dataset", config=config, summary=summary) as out:
            write_samples(out, samples, config.class_names, config.image_size)
            images = (np.load(scratch / f"{sample.sha256}.npy", allow_pickle=False) for sample in samples)
            write_shards(out, images, len(samples), config.image_size)
            _write_tables(out, rejected, [*exact, *near])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_all(config: IngestConfig, scratch: Path) -> Iterator[_Checked]:
    names = SourceConfig.__dataclass_fields__.keys()
    first = SourceConfig(**{name: getattr(config, name) for name in names})
    sources = parse_sources(first, config.extra_sources)
    records = itertools.chain.from_iterable(read_source(source, config.class_names) for source in sources)
    workers = len(os.sched_getaffinity(0))
    yield from progress(_parallel(lambda record: _check(record, config, scratch), records, workers), "images")


def _parallel(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """Ordered map over threads (Pillow decodes without the GIL) that reads only a few items ahead."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _check(record: Record, config: IngestConfig, scratch: Path) -> _Checked:
    released = Record(record.source, record.path, record.label, record.group, record.attributes, lambda: b"")
    try:
        data = record.read()
        digest = hashlib.sha256(data).hexdigest()
        image = decode(data, name=record.path, max_pixels=config.max_pixels, target_size=config.image_size)
    except ImageRejectedError as error:
        return _Checked(released, "", str(error), 0)
    pixels = resize(image, config.image_size)
    file = scratch / f"{digest}.npy"
    np.save(file, pixels, allow_pickle=False)
    return _Checked(released, digest, "", duplicates.perceptual_hash(pixels))


def _refuse_too_many(config: IngestConfig, total: int, rejected: list[_Checked]) -> None:
    share = len(rejected) / max(total, 1)
    if share > config.max_reject_share or len(rejected) == total:
        named = "; ".join(f"{item.record.source}/{item.record.path}: {item.reason}" for item in rejected)
        raise DataError(
            f"{len(rejected)} of {total} images are unusable, more than max_reject_share={config.max_reject_share}: "
            + (named or "no rows are left after label_map")
        )


def _without_copies(usable: list[_Checked]) -> tuple[list[_Checked], list[_Pair]]:
    """One file per content, the first by (source, path), and the pairs of each with its copies.

    Where copies carry different labels nobody can know the right one: all of them are left out.
    """
    by_digest: dict[str, list[_Checked]] = {}
    for item in usable:
        by_digest.setdefault(item.sha256, []).append(item)
    pairs = [_Pair("exact", copies[0], copy, 0) for copies in by_digest.values() for copy in copies[1:]]
    kept = [copies[0] for copies in by_digest.values() if len({copy.record.label for copy in copies}) == 1]
    return kept, pairs


def _near_pairs(config: IngestConfig, kept: list[_Checked]) -> list[_Pair]:
    hashes = np.array([item.phash for item in kept], dtype=np.uint64)
    found = duplicates.near_pairs(hashes, config.near_duplicate_distance)
    distances = np.bitwise_count(hashes[found[:, 0]] ^ hashes[found[:, 1]])
    rows = zip(found.tolist(), distances.tolist(), strict=True)
    return [_Pair("near", kept[i], kept[j], distance) for (i, j), distance in rows]


def _samples(config: IngestConfig, kept: list[_Checked], exact: list[_Pair], near: list[_Pair]) -> list[Sample]:
    """Samples sorted by id, each with its united group: given groups joined by duplicates."""
    position = {item.sha256: index for index, item in enumerate(kept)}
    edges: list[tuple[int, int]] = [(position[p.first.sha256], position[p.second.sha256]) for p in near]
    first_of_group: dict[str, int] = {}
    for index, item in enumerate(kept):
        edges.append((first_of_group.setdefault(item.record.group, index), index))
    for pair in exact:
        # The group of a dropped copy still holds other images: they must stay with the kept one.
        if pair.first.sha256 in position and pair.second.record.group in first_of_group:
            edges.append((position[pair.first.sha256], first_of_group[pair.second.record.group]))
    united = duplicates.components(len(kept), np.array(edges, dtype=np.int64).reshape(-1, 2))
    names = _smallest_names(united, [item.record.group for item in kept])
    samples = [
        Sample(
            sample_id=item.sha256[:16],
            label=config.class_names.index(item.record.label),
            group=names[int(component)],
            source=item.record.source,
            path=item.record.path,
            sha256=item.sha256,
            attributes=item.record.attributes,
        )
        for item, component in zip(kept, united, strict=True)
    ]
    return sorted(samples, key=lambda sample: sample.sample_id)


def _smallest_names(united: npt.NDArray[np.int64], groups: list[str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for component, group in zip(united.tolist(), groups, strict=True):
        names[component] = min(names.get(component, group), group)
    return names


def _report(samples: list[Sample], rejected: list[_Checked], exact: list[_Pair], near: list[_Pair]) -> None:
    print(
        f"{len(samples)} samples in {len({s.group for s in samples})} groups; {len(rejected)} rejected, "
        f"{len(exact)} exact and {len(near)} near-duplicate pairs"
    )
    for item in rejected[:_NAMED_REJECTS]:
        print(f"  rejected {item.record.source}/{item.record.path}: {item.reason}")
    for pair in (p for p in [*exact, *near] if p.conflict):
        first, second = pair.first.record, pair.second.record
        print(
            f"  {pair.kind} duplicates with different labels: {first.path} {first.label}, {second.path} {second.label}"
        )


def _summary(
    config: IngestConfig, samples: list[Sample], rejected: list[_Checked], exact: list[_Pair], near: list[_Pair]
) -> dict[str, object]:
    labels = [sample.label for sample in samples]
    return {
        "n_samples": len(samples),
        "n_groups": len({sample.group for sample in samples}),
        "n_per_class": {name: labels.count(index) for index, name in enumerate(config.class_names)},
        "n_rejected": len(rejected),
        "n_exact_duplicates": len(exact),
        "n_near_duplicate_pairs": len(near),
        "n_label_conflicts": sum(pair.conflict for pair in [*exact, *near]),
        "sources": sorted({sample.source for sample in samples}),
    }


def _write_tables(out: Path, rejected: list[_Checked], pairs: list[_Pair]) -> None:
    with (out / "rejects.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["source", "path", "reason"])
        writer.writerows((item.record.source, item.record.path, item.reason) for item in rejected)
    with (out / "duplicates.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = ("id", "source", "path", "label")
        writer.writerow(["kind", "distance", "conflict", *(f"{c}_{side}" for side in ("a", "b") for c in columns)])
        for pair in pairs:
            sides = [
                (item.sha256[:16], item.record.source, item.record.path, item.record.label)
                for item in (pair.first, pair.second)
            ]
            writer.writerow([pair.kind, pair.distance, int(pair.conflict), *sides[0], *sides[1]])


if __name__ == "__main__":
    main(run, IngestConfig)
