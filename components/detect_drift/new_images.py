"""The new images that are compared, one of each group.

Every image is decoded as ingest decodes it, so that no difference of pixels is the decoder's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from components.detect_drift.config import DetectDriftConfig
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import printable
from components.shared.contracts.random_streams import DriftStream
from components.shared.data import duplicates
from components.shared.data.decode import decode_resized
from components.shared.data.files import Files
from components.shared.policies.calibration_split import one_per_group
from components.shared.serving.new_images import (
    decoded_images,
    listed_images,
    near_duplicate_groups,
)

FEWEST_GROUPS = 16  # with fewer a test sees nothing but the crudest shift


@dataclass(frozen=True)
class NewImages:
    """The images that are compared, one of each of G groups.

    Attributes:
        files: where they are.
        size: side to which they are decoded, in pixels.
        names: (G,) names below the address.
        group_sizes: (G,) number of read images in the group of each.
        n_listed: images below the address.
        n_read: images that were read.
        n_groups: groups of the read images.
        rejected: names of read files that cannot be decoded, with the reason.
    """

    files: Files
    size: int
    names: tuple[str, ...]
    group_sizes: tuple[int, ...]
    n_listed: int
    n_read: int
    n_groups: int
    rejected: dict[str, str]

    def pixels(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Return (n, S, S, 3) uint8 of the images `rows`."""
        return np.stack(
            [decode_resized(self.files.read(self.names[row]), size=self.size) for row in rows]
        )


def read_new_images(config: DetectDriftConfig, size: int) -> NewImages:
    """List, read and group the images.

    Args:
        config: of the step.
        size: side to which images are decoded.

    Raises:
        DataError: there are no images, none can be decoded, or they are too few groups.
    """
    listing = listed_images(config.images)
    names = listing.drawn(config.max_images, config.seed)

    def thumbnail(data: bytes) -> npt.NDArray[np.uint8]:
        return duplicates.thumbnail(decode_resized(data, size=size))

    rejected: dict[str, str] = {}
    decoded = dict(decoded_images(listing.files, names, thumbnail, rejected))
    read = list(decoded)

    links = _of_one_folder(read) if config.unit == "folder" else None
    groups = near_duplicate_groups(np.stack(list(decoded.values())), links)
    sizes = np.bincount(groups)
    if len(sizes) < FEWEST_GROUPS:
        raise DataError(
            f"images={printable(config.images)}: {len(read)} images in {len(sizes)} groups"
            f" (unit={config.unit}), a test needs at least {FEWEST_GROUPS}; collect images of more"
            " places, or of more nights"
        )

    rows = one_per_group([f"{group:09d}" for group in groups], config.seed)
    rng = np.random.default_rng([config.seed, len(rows), DriftStream.KEPT_GROUPS])
    kept = rng.permutation(len(rows))
    rows = rows[np.sort(kept[: config.max_groups])]

    return NewImages(
        files=listing.files,
        size=size,
        names=tuple(read[row] for row in rows),
        group_sizes=tuple(int(sizes[groups[row]]) for row in rows),
        n_listed=len(listing.names),
        n_read=len(read),
        n_groups=len(sizes),
        rejected=rejected,
    )


def _of_one_folder(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return (N, 2) pairs of rows: of each image, and of the first one in its folder."""
    first: dict[str, int] = {}
    folders = [str(PurePosixPath(name).parent) for name in names]
    pairs = [(first.setdefault(folder, row), row) for row, folder in enumerate(folders)]
    return np.array(pairs, dtype=np.int64)
