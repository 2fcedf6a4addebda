"""New images below an address: which are read, and which of them show one scene.

Every image is decoded as ingest decodes it, so that no difference of pixels is the decoder's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from components.detect_drift.config import DetectDriftConfig
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of, printable
from components.shared.contracts.progress import progress
from components.shared.data import duplicates
from components.shared.data.decode import ImageRejectedError, decode_resized, without_warnings
from components.shared.data.files import Files, files_at, is_hidden, is_image
from components.shared.data.parallel import ordered_map
from components.shared.policies.calibration_split import one_per_group

# As ingest's default: distance in bits below which two images show one scene.
_MAX_DISTANCE = 8
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
        return np.stack([_decoded(self.files, self.names[row], self.size) for row in rows])


def read_new_images(config: DetectDriftConfig, size: int) -> NewImages:
    """List, read and group the images.

    Args:
        config: of the step.
        size: side to which images are decoded.

    Raises:
        DataError: there are no images, none can be decoded, or they are too few groups.
    """
    files = files_at(config.images, "images")
    listed = [name for name in files.names() if is_image(name) and not is_hidden(name)]
    if not listed:
        raise DataError(f"images={printable(config.images)} holds no images; is the prefix right?")

    drawn = np.random.default_rng([config.seed, len(listed)]).permutation(len(listed))
    names = [listed[row] for row in np.sort(drawn[: config.max_images])]
    thumbnails, rejected = _thumbnails(files, names, size)
    read = [name for name in names if name not in rejected]
    if not read:
        raise DataError(
            f"images={printable(config.images)}: none of {len(names)} images can be decoded, such"
            f" as {printable(names[0])}: {rejected[names[0]]}"
        )

    groups = _groups(read, thumbnails, by_folder=config.unit == "folder")
    sizes = np.bincount(groups)
    if len(sizes) < FEWEST_GROUPS:
        raise DataError(
            f"images={printable(config.images)}: {len(read)} images in {len(sizes)} groups"
            f" (unit={config.unit}), a test needs at least {FEWEST_GROUPS}; collect images of more"
            " places, or of more nights"
        )

    rows = one_per_group([f"{group:09d}" for group in groups], config.seed)
    kept = np.random.default_rng([config.seed, len(rows), 1]).permutation(len(rows))
    rows = rows[np.sort(kept[: config.max_groups])]

    return NewImages(
        files=files,
        size=size,
        names=tuple(read[row] for row in rows),
        group_sizes=tuple(int(sizes[groups[row]]) for row in rows),
        n_listed=len(listed),
        n_read=len(read),
        n_groups=len(sizes),
        rejected=rejected,
    )


def _thumbnails(
    files: Files, names: Sequence[str], size: int
) -> tuple[npt.NDArray[np.uint8], dict[str, str]]:
    """Return (n, 32, 32) uint8 of the images that can be decoded, and why the others cannot."""

    def thumbnail(name: str) -> npt.NDArray[np.uint8] | str:
        try:
            return duplicates.thumbnail(_decoded(files, name, size))
        except ImageRejectedError as error:
            return str(error)

    found, rejected = [], {}
    with without_warnings():
        read = progress(ordered_map(thumbnail, names), "new images", total=len(names))
        for name, result in zip(names, read, strict=True):
            if isinstance(result, str):
                rejected[name] = result
            else:
                found.append(result)

    side = (0, duplicates.THUMBNAIL_SIZE, duplicates.THUMBNAIL_SIZE)
    return np.stack(found) if found else np.empty(side, dtype=np.uint8), rejected


def _decoded(files: Files, name: str, size: int) -> npt.NDArray[np.uint8]:
    return decode_resized(files.read(name), size=size)


def _groups(
    names: Sequence[str], thumbnails: npt.NDArray[np.uint8], *, by_folder: bool
) -> npt.NDArray[np.int64]:
    """Return (n,) number of each image's group: near-duplicates, and images of one folder."""
    hashes = duplicates.perceptual_hashes(thumbnails)
    links = [duplicates.nearest_links(hashes, _MAX_DISTANCE)[0]]
    if by_folder:
        first: dict[str, int] = {}
        folders = [str(PurePosixPath(name).parent) for name in names]
        pairs = [(first.setdefault(folder, row), row) for row, folder in enumerate(folders)]
        links.append(np.array(pairs, dtype=np.int64))
    return duplicates.connected_components(len(names), np.concatenate(links))


def shown_rejects(rejected: dict[str, str]) -> str:
    """Return the first names of files that cannot be decoded, with the reasons."""
    return first_of(
        [f"{printable(name)} ({reason})" for name, reason in sorted(rejected.items())], most=5
    )
