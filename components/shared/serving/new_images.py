"""New images without labels: which are below an address, which show one scene, and their features.

What a step needs that looks at images of users through a bundle.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import DataError, PermanentError
from components.shared.contracts.listing import first_of, printable
from components.shared.contracts.progress import progress
from components.shared.data import duplicates
from components.shared.data.decode import ImageRejectedError, without_warnings
from components.shared.data.files import Files, files_at, is_hidden, is_image
from components.shared.data.parallel import ordered_map

if TYPE_CHECKING:
    from components.shared.serving.predictor import Predictor

T = TypeVar("T")

BATCH = 16  # images, as the predict command's
_NEAR = 8  # bits of the hash within which two images show one scene, as ingest's default


@dataclass(frozen=True)
class NewImages:
    """What a bundle makes of N images below an address.

    Attributes:
        names: (N,) names below the address, sorted.
        features: (N, 2h) float32 input of the head, of several views pooled.
        logits: (N, C) float64 before calibration, in the order of the policy's classes.
        gate: (N,) raw gate scores; None without a gate.
        groups: (N,) int64 number of the set of near-duplicates that an image belongs to.
        rejected: Names of files that cannot be decoded, with the reason.
        n_listed: Number of images below the address.
    """

    names: tuple[str, ...]
    features: npt.NDArray[np.float32] = field(repr=False)
    logits: npt.NDArray[np.float64] = field(repr=False)
    gate: npt.NDArray[np.float64] | None = field(repr=False)
    groups: npt.NDArray[np.int64] = field(repr=False)
    rejected: dict[str, str]
    n_listed: int


class Embedded(NamedTuple):
    """What a bundle makes of a batch; axes as in `NewImages`."""

    features: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float64]
    gate: npt.NDArray[np.float64] | None


class Listing(NamedTuple):
    """The files below an address, and the sorted names of the images among them."""

    files: Files
    names: list[str]

    def drawn(self, most: int, seed: int) -> list[str]:
        """Return the names of at most `most` images, drawn from all, sorted."""
        rows = np.random.default_rng([seed, len(self.names)]).permutation(len(self.names))
        return [self.names[row] for row in np.sort(rows[:most])]


def listed_images(address: str, option: str = "images") -> Listing:
    """List the images below a folder or s3://bucket/prefix.

    Raises:
        DataError: There is no such place, or no image in it. `option` is what messages call it.
    """
    files = files_at(address, option)
    names = [name for name in files.names() if is_image(name) and not is_hidden(name)]
    if not names:
        raise DataError(f"{option}={printable(address)} holds no images; is the prefix right?")
    return Listing(files, names)


def decoded_images(
    files: Files, names: Sequence[str], decode: Callable[[bytes], T], rejected: dict[str, str]
) -> Iterator[tuple[str, T]]:
    """Yield name and image of the files that can be decoded, in order.

    Args:
        files: Where they are.
        names: Of the files.
        decode: Called with a file's bytes in a thread; raises ImageRejectedError.
        rejected: Is given the names of the others, with the reason.

    Raises:
        DataError: None of them can be decoded; after the last one.
    """

    def image(name: str) -> T | ImageRejectedError:
        try:
            return decode(files.read(name))
        except ImageRejectedError as error:
            return error

    with without_warnings():
        found = progress(ordered_map(image, names), "new images", total=len(names))
        for name, result in zip(names, found, strict=True):
            if isinstance(result, ImageRejectedError):
                rejected[name] = str(result)
            else:
                yield name, result

    if len(rejected) == len(names):
        raise DataError(
            f"images={printable(files.address)}: none of {len(names)} images can be decoded, such"
            f" as {printable(names[0])}: {rejected[names[0]]}"
        )


def embed_images(predictor: "Predictor", listing: Listing, *, most: int, seed: int) -> NewImages:
    """Read listed images and pass them through a bundle, each once.

    They are decoded as the predictor decodes them, so that logits are those that users are given.

    Args:
        predictor: The bundle's predictor.
        listing: The images.
        most: Most images that are read, drawn from all.
        seed: Of the draw.

    Raises:
        DataError: None of the images can be decoded.
        PermanentError: The model's output is not finite.
    """
    read, thumbnails, batches = [], [], []
    waiting: list[npt.NDArray[np.uint8]] = []
    rejected: dict[str, str] = {}
    names = listing.drawn(most, seed)
    for name, pixels in decoded_images(listing.files, names, predictor.pixels, rejected):
        read.append(name)
        thumbnails.append(duplicates.thumbnail(pixels))
        waiting.append(pixels)
        if len(waiting) == BATCH:
            batches.append(Embedded(*predictor.embedded(np.stack(waiting))))
            waiting = []
    if waiting:
        batches.append(Embedded(*predictor.embedded(np.stack(waiting))))

    whole = _joined(batches)
    if not (np.isfinite(whole.features).all() and np.isfinite(whole.logits).all()):
        raise PermanentError("the bundle's output is not finite; its weights are damaged")
    return NewImages(
        tuple(read),
        *whole,
        groups=near_duplicate_groups(np.stack(thumbnails)),
        rejected=rejected,
        n_listed=len(listing.names),
    )


def near_duplicate_groups(
    thumbnails: npt.NDArray[np.uint8], links: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Return the set of near-duplicates that each image belongs to.

    Args:
        thumbnails: (N, 32, 32) uint8.
        links: (L, 2) further pairs of rows that belong together.

    Returns:
        (N,) int64 numbers of sets.
    """
    hashes = duplicates.perceptual_hashes(thumbnails)
    near = duplicates.nearest_links(hashes, _NEAR)[0]
    every = near if links is None else np.concatenate([near, links])
    return duplicates.connected_components(len(hashes), every)


def shown_rejects(rejected: Mapping[str, str]) -> str:
    """Return the first names of files that cannot be decoded, with the reasons."""
    return first_of(
        [f"{printable(name)} ({reason})" for name, reason in sorted(rejected.items())], most=5
    )


def _joined(batches: Sequence[Embedded]) -> Embedded:
    gates = [batch.gate for batch in batches if batch.gate is not None]
    return Embedded(
        np.concatenate([batch.features for batch in batches]),
        np.concatenate([batch.logits for batch in batches]),
        np.concatenate(gates) if gates else None,
    )
