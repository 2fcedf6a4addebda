"""The TrainImages artifact: pixels of TRAIN for training without labels, and nothing else.

`images/shard-NNNNN.npy` hold the pixels as the data set stores them, in the order of the sorted
sample ids in `train_images.json`. Labels, groups, paths and other splits are not in the artifact,
so that no code can read them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.documents import read_json
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.contracts.listing import first_of, shown
from components.shared.data.dataset import Dataset, map_shards, read_shards, write_shards

SPLIT = "TRAIN"
_HEADER = "train_images.json"
_FIELDS = {"split", "image_size", "sample_ids"}
_SHARD = re.compile(r"images/shard-\d{5}\.npy")
_READ_AT_ONCE = 64  # images
_MOST_HEADER_BYTES = 256 * 2**20  # ids of twelve million images


@dataclass(frozen=True)
class TrainImages:
    """An opened, verified artifact.

    image_size: in pixels. sample_ids: sorted, in the order of the pixels.
    """

    manifest: Manifest
    image_size: int
    sample_ids: tuple[str, ...]
    shards: list[npt.NDArray[np.uint8]] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Verify the artifact and map its shards.

        Raises:
            LeakageViolationError: the artifact is of another split, by its manifest or by its
                content, or holds anything besides pixels and ids.
            ArtifactError: the message lists every other difference.
        """
        manifest = verify_dir(path, Kind.TRAIN_IMAGES, split=SPLIT)
        foreign = sorted(
            name for name in manifest.files if name != _HEADER and not _SHARD.fullmatch(name)
        )
        if foreign:
            raise LeakageViolationError(
                f"{path}: holds {first_of(foreign)}; {Kind.TRAIN_IMAGES} are pixels and ids only"
            )

        image_size, ids = _read_header(path)
        return cls(manifest, image_size, ids, map_shards(path, len(ids), image_size))

    def __len__(self) -> int:
        return len(self.sample_ids)

    def images(
        self, positions: npt.NDArray[np.int64], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Pixels (n, S, S, 3) uint8 of the samples at `positions` (n,); in `out`, if given."""
        return read_shards(self.shards, positions, self.image_size, out)


def write_train_images(directory: Path, data: Dataset, ids: Sequence[str]) -> None:
    """Write the pixels of TRAIN's samples `ids` into an artifact's staging directory."""
    ids = sorted(ids)
    positions = np.array([data.index[sample_id] for sample_id in ids], dtype=np.int64)
    write_shards(directory, _pixels(data, positions), len(ids), data.image_size)
    write_json(
        directory / _HEADER, {"split": SPLIT, "image_size": data.image_size, "sample_ids": ids}
    )


def _read_header(path: Path) -> tuple[int, tuple[str, ...]]:
    """Return the side of the images in pixels and the sample ids; raises as `open`."""
    header = read_json(path / _HEADER, most_bytes=_MOST_HEADER_BYTES)
    found = header.keys() if isinstance(header, dict) else set[str]()
    if found and header.get("split") != SPLIT:
        raise LeakageViolationError(
            f"{path}: holds split {shown(header.get('split'))}, this step may only see 'TRAIN'"
        )
    if found != _FIELDS:
        raise LeakageViolationError(
            f"{path}/{_HEADER}: has other fields than {sorted(_FIELDS)}, difference:"
            f" {first_of(sorted(found ^ _FIELDS))}"
        )

    size, ids = header["image_size"], header["sample_ids"]
    if type(size) is not int or size < 1:
        raise ArtifactError(f"{path}/{_HEADER}: image_size={shown(size)} must be an integer >= 1")
    if not isinstance(ids, list) or not ids or not all(isinstance(i, str) for i in ids):
        raise ArtifactError(f"{path}/{_HEADER}: sample_ids={shown(ids)} must be a list of texts")
    if ids != sorted(set(ids)):
        raise ArtifactError(f"{path}/{_HEADER}: sample_ids are not sorted, or one occurs twice")

    return size, tuple(ids)


def _pixels(data: Dataset, positions: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the images at `positions` one by one, read in blocks."""
    for start in range(0, len(positions), _READ_AT_ONCE):
        yield from data.images(positions[start : start + _READ_AT_ONCE])
