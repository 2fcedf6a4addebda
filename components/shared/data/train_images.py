"""The TrainImages artifact: pixels of TRAIN for training without labels, and nothing else.

`images/shard-NNNNN.npy` hold the pixels as the data set stores them, in the order of the sorted
sample ids in `train_images.json`. Labels, groups, paths and other splits are not in the artifact,
so that no code can read them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.contracts.listing import first_of
from components.shared.data.dataset import Dataset, map_shards, read_shards, write_shards

SPLIT = "TRAIN"
_HEADER = "train_images.json"
_FIELDS = {"split", "image_size", "sample_ids"}
_SHARD = re.compile(r"images/shard-\d{5}\.npy")
_READ_AT_ONCE = 64  # images


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

        header = json.loads((path / _HEADER).read_text(encoding="utf-8"))
        if header.get("split") != SPLIT:
            raise LeakageViolationError(
                f"{path}: holds split {header.get('split')!r}, this step may only see 'TRAIN'"
            )
        if set(header) != _FIELDS:
            raise LeakageViolationError(
                f"{path}/{_HEADER}: has other fields than {sorted(_FIELDS)}, difference:"
                f" {sorted(set(header) ^ _FIELDS)}"
            )

        ids, shards = tuple(header["sample_ids"]), map_shards(path)
        if sum(map(len, shards)) != len(ids) or not ids:
            raise ArtifactError(f"{path}: {sum(map(len, shards))} images for {len(ids)} sample ids")

        return cls(manifest, header["image_size"], ids, shards)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def images(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return pixels (n, S, S, 3) uint8 of the samples at `positions` (n,)."""
        return read_shards(self.shards, positions, self.image_size)


def write_train_images(directory: Path, data: Dataset, ids: Sequence[str]) -> None:
    """Write the pixels of TRAIN's samples `ids` into an artifact's staging directory."""
    ids = sorted(ids)
    positions = np.array([data.index[sample_id] for sample_id in ids], dtype=np.int64)
    write_shards(directory, _pixels(data, positions), len(ids), data.image_size)
    write_json(
        directory / _HEADER, {"split": SPLIT, "image_size": data.image_size, "sample_ids": ids}
    )


def _pixels(data: Dataset, positions: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the images at `positions` one by one, read in blocks."""
    for start in range(0, len(positions), _READ_AT_ONCE):
        yield from data.images(positions[start : start + _READ_AT_ONCE])
