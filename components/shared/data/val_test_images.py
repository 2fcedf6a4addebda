"""The ValTestImages artifact: the few pixels of VAL_TEST that evaluation and export need.

Both would otherwise fetch the whole data set. `predict_logits` writes it, the last phase that reads
the data set:

* thumbnails (JPEG) of the images that may become hard examples. Which these are depends on the
  policies, so the logits choose candidates: the images whose true class has the least logit
  compared with the largest other one. Errors of any threshold are among them, as long as they are
  fewer than the candidates, and a small data set has thumbnails of all images;
* the parts of margins (`margin_parts`) of the first 2,000 of these images;
* probes: some images at full size, on which the bundle is compared with the checkpoint;
* labels of all images, and the data set's manifest, for the report and the model card;
* what else is recorded of all images, by which metrics are sliced.
"""

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import (
    Manifest,
    parse_manifest,
    verify_dir,
    write_json,
)
from components.shared.contracts.documents import read_bytes, read_object
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.machine import n_usable_cores
from components.shared.contracts.outcomes import class_names_problem
from components.shared.contracts.tables import integer, read_table, write_table
from components.shared.data.arrays import load_array
from components.shared.data.attributes import is_recorded, recorded_columns
from components.shared.data.dataset import Dataset
from components.shared.data.margin_parts import MarginParts, read_margin_parts, write_margin_parts

SPLIT = "VAL_TEST"
# 150 to 250 MB: a hundred times as many as the report can show, whatever the size of the data set.
MOST_THUMBNAILS = 20_000
N_PROBES = 16  # a second with a small backbone, half a minute with the largest
_THUMBNAIL = 224  # pixels
_QUALITY = 80
_READ_AT_ONCE = 64  # images
_HEADER, _DATASET = "val_test_images.json", "dataset_manifest.json"
_TABLE, _THUMBNAILS, _PROBES = "samples.csv", "thumbnails.npy", "probes.npy"
_COLUMNS = ("sample_id", "label", "thumbnail_bytes")


@dataclass(frozen=True)
class _Header:
    """The document of val_test_images.json."""

    split: str
    class_names: tuple[str, ...]
    image_size: int


@dataclass(frozen=True)
class ValTestImages:
    """An opened, verified artifact, of N images.

    Attributes:
        manifest: of the artifact.
        dataset: manifest of the ImageDataset that it was made from.
        class_names: of the data set.
        image_size: side of the data set's images, in pixels.
        labels: class index by sample id.
        recorded: columns of texts in the order of `labels`, see `attributes`; artifacts of former
            versions have none.
        probes: (P, S, S, 3) uint8, some images as the data set stores them.
        parts: of the margins of images that may become hard examples, by sample id; artifacts of
            former versions have none.
    """

    manifest: Manifest
    dataset: Manifest
    class_names: tuple[str, ...]
    image_size: int
    labels: dict[str, int]
    recorded: dict[str, list[str]] = field(repr=False)
    probes: npt.NDArray[np.uint8] = field(repr=False)
    parts: dict[str, MarginParts] = field(repr=False)
    _bytes: npt.NDArray[np.uint8] = field(repr=False)
    _lengths: tuple[int, ...] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Verify and read the artifact.

        Raises:
            LeakageViolationError: the artifact is of another split, by its manifest or its content.
            ArtifactError: files differ from the manifest, or contradict each other.
        """
        manifest = verify_dir(path, Kind.VAL_TEST_IMAGES, split=SPLIT)
        header = read_object(path / _HEADER, _Header)
        if header.split != SPLIT:
            raise LeakageViolationError(
                f"{path}: holds split {shown(header.split)}, this step may only see {SPLIT!r}"
            )

        where = str(path / _TABLE)
        rows = list(read_table(path / _TABLE, _COLUMNS))
        labels = {row["sample_id"]: integer(row["label"], where) for row in rows}
        lengths = tuple(integer(row["thumbnail_bytes"], where) for row in rows)
        recorded = [name for name in (rows[0] if rows else ()) if is_recorded(name)]
        problem = class_names_problem(header.class_names, least=1)
        problem = problem or _table_problem(labels, lengths, header)
        if problem:
            raise ArtifactError(f"{path}: {problem}")

        size = header.image_size
        return cls(
            manifest=manifest,
            dataset=_dataset_manifest(path, manifest),
            class_names=header.class_names,
            image_size=size,
            labels=labels,
            recorded={name: [row[name] for row in rows] for name in recorded},
            probes=load_array(path / _PROBES, np.uint8, (None, size, size, 3)),
            _bytes=load_array(path / _THUMBNAILS, np.uint8, (sum(lengths),), mapped=True),
            _lengths=lengths,
            parts=read_margin_parts(path, labels, len(header.class_names)),
        )

    def thumbnail(self, sample_id: str) -> bytes:
        """Return an image as a JPEG of at most 224 pixels a side; empty where there is none."""
        end, length = self._ends[sample_id]
        return self._bytes[end - length : end].tobytes()

    @cached_property
    def _ends(self) -> dict[str, tuple[int, int]]:
        """End and length of each thumbnail, in bytes."""
        ends = zip(accumulate(self._lengths), self._lengths, strict=True)
        return dict(zip(self.labels, ends, strict=True))


def write_val_test_images(
    directory: Path,
    data: Dataset,
    ids: Sequence[str],
    logits: npt.NDArray[np.float32],
    most: int = MOST_THUMBNAILS,
    parts: Mapping[str, MarginParts] | None = None,
) -> None:
    """Write the artifact's files into its staging directory.

    Args:
        directory: the staging directory.
        data: the data set.
        ids: of VAL_TEST, sorted.
        logits: (N, C) float32 of these images.
        most: number of images with a thumbnail.
        parts: of the margins of some of them, by sample id.
    """
    positions = np.array([data.index[sample_id] for sample_id in ids], dtype=np.int64)
    labels = np.array([data.samples[position].label for position in positions], dtype=np.int64)

    rows = np.sort(least_certain(logits, labels)[:most])
    jpegs = dict(zip(rows.tolist(), _encoded(data, positions[rows]), strict=True))
    _save(directory / _THUMBNAILS, np.frombuffer(b"".join(jpegs.values()), dtype=np.uint8))

    probes = np.linspace(0, len(positions) - 1, min(N_PROBES, len(positions)))
    _save(directory / _PROBES, data.images(positions[probes.round().astype(np.int64)]))

    recorded = recorded_columns([data.samples[position] for position in positions])
    lengths = [len(jpegs.get(row, b"")) for row in range(len(ids))]
    table = zip(ids, labels.tolist(), lengths, *recorded.values(), strict=True)
    write_table(directory / _TABLE, (*_COLUMNS, *recorded), table)
    if parts:
        write_margin_parts(directory, parts)
    write_json(directory / _DATASET, data.manifest.to_json())
    write_json(
        directory / _HEADER,
        {
            "split": SPLIT,
            "class_names": list(data.class_names),
            "image_size": data.image_size,
        },
    )


def encode_thumbnail(image: npt.NDArray[np.uint8]) -> bytes:
    """Return an image (S, S, 3) as a JPEG of at most 224 pixels a side."""
    from PIL import Image  # readers need no Pillow

    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    picture.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()


def least_certain(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return (N,) rows in the order of the true class's margin over the best other class."""
    rows, logits64 = np.arange(len(labels)), logits.astype(np.float64)
    best_other = logits64[rows, wrong_classes(logits, labels)]
    return np.argsort(logits64[rows, labels] - best_other, kind="stable")


def wrong_classes(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return (N,) the most probable class of each image that is not its true one."""
    others = logits.astype(np.float64)
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(others.argmax(axis=1))


def _encoded(data: Dataset, positions: npt.NDArray[np.int64]) -> list[bytes]:
    """Return thumbnails of the images at `positions`, by threads: Pillow works without the GIL."""
    jpegs: list[bytes] = []
    with ThreadPoolExecutor(n_usable_cores()) as pool:
        for start in range(0, len(positions), _READ_AT_ONCE):
            images = data.images(positions[start : start + _READ_AT_ONCE])
            jpegs += pool.map(encode_thumbnail, images)
    return jpegs


def _save(file: Path, values: npt.NDArray[np.uint8]) -> None:
    np.save(file, values, allow_pickle=False)


def _table_problem(labels: dict[str, int], lengths: Sequence[int], header: _Header) -> str:
    """Return what is wrong with the artifact's table or header, or an empty text."""
    n_classes = len(header.class_names)
    outside = sorted(set(labels.values()) - set(range(n_classes)))
    if header.image_size < 1:
        return f"image_size={header.image_size} must be >= 1"
    if list(labels) != sorted(labels) or len(labels) != len(lengths):
        return f"{_TABLE} is not sorted by sample_id, or has one twice"
    if outside:
        return f"{_TABLE} has the labels {first_of(outside)}, not 0..{n_classes - 1}"
    if min(lengths, default=0) < 0:
        return f"{_TABLE} has thumbnails of less than 0 bytes"
    return ""


def _dataset_manifest(path: Path, manifest: Manifest) -> Manifest:
    """Return the data set's manifest from its copy; raise ArtifactError for any other one."""
    copy = parse_manifest(read_bytes(path / _DATASET), str(path / _DATASET))
    if copy.kind != Kind.IMAGE_DATASET or copy.content_digest != manifest.inputs.get("dataset"):
        raise ArtifactError(f"{path / _DATASET}: is not the manifest of the data set it names")
    return copy
