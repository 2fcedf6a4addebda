"""Answers of a bundle to listed images, in parts of which each is computed once.

The parts are cut from the sorted listing, and a part is found again by the names and versions of
its images: what an earlier attempt has scored is not scored again, also where images were added
behind it.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.score_images.table import Row, read_part, write_part
from components.shared.contracts.config import digest
from components.shared.contracts.errors import one_line
from components.shared.contracts.listing import say
from components.shared.contracts.progress import progress
from components.shared.data.decode import ImageRejectedError, without_warnings
from components.shared.data.files import Files
from components.shared.data.finished_parts import FinishedParts
from components.shared.data.parallel import ordered_map
from components.shared.policies.policy import SET_SEPARATOR
from components.shared.serving.answer import Answer
from components.shared.serving.bundle import Bundle
from components.shared.serving.forms import FormPredictor, open_predictor
from components.shared.serving.new_images import BATCH, Listing
from components.shared.storage.errors import ObjectNotFoundError

PART_IMAGES = 16 * BATCH  # half a minute of one core: what an attempt loses at most
_Pixels = npt.NDArray[np.uint8]


class Part(NamedTuple):
    """Names of consecutive images of the listing, and the name that their scores are kept under."""

    key: str
    names: list[str]

    @property
    def paths(self) -> list[str]:
        """The names as the table has them: text also where a file's name is none."""
        return [_as_text(name) for name in self.names]


def parts_of(listing: Listing) -> list[Part]:
    """Return the parts of a listing."""
    starts = range(0, len(listing.names), PART_IMAGES)
    return [_part(listing.files, listing.names[first : first + PART_IMAGES]) for first in starts]


def _part(files: Files, names: list[str]) -> Part:
    versions = [[_as_text(name), files.version(name)] for name in names]
    return Part(f"part-{digest(versions)[:32]}", names)


def score(
    bundle: Bundle, form: str, files: Files, parts: list[Part], finished: FinishedParts
) -> list[Path]:
    """Return the folder with the scores of each part.

    Args:
        bundle: The bundle.
        form: Its form that answers.
        files: The images.
        parts: Their names.
        finished: Parts of an earlier attempt, which are not scored again; receives the others.

    Raises:
        ArtifactError: The bundle has no such form, or its model is refused.
        PermanentError: The model's output is not finite.
    """
    folders = {
        part.key: finished.find(part.key, functools.partial(read_part, names=part.paths))
        for part in parts
    }
    todo = [part for part in parts if folders[part.key] is None]
    n_todo = sum(len(part.names) for part in todo)
    n_images = sum(len(part.names) for part in parts)
    if n_todo < n_images:
        say(f"{n_images - n_todo} of {n_images} images were scored by an earlier attempt")

    if todo:  # else nobody needs the model
        predictor = open_predictor(bundle, form)
        names = itertools.chain.from_iterable(part.names for part in todo)
        images = progress(_decoded(predictor, files, names), "images", total=n_todo)
        with without_warnings(), contextlib.closing(images) as decoded:
            folders |= {part.key: _made(part, predictor, decoded, finished) for part in todo}
            next(decoded, None)  # the bar ends at its total
        finished.settle()

    return [folder for folder in folders.values() if folder is not None]


def _made(
    part: Part, predictor: FormPredictor, decoded: Iterator[_Pixels | str], finished: FinishedParts
) -> Path:
    """Score one part; its images are the next ones of `decoded`."""
    rows = _rows(predictor, part, decoded)
    return finished.add(part.key, lambda out: write_part(out, rows))


def _decoded(
    predictor: FormPredictor, files: Files, names: Iterable[str]
) -> Iterator[_Pixels | str]:
    """Yield the pixels of each image, or why it cannot be read."""

    def decoded(name: str) -> _Pixels | str:
        try:
            return predictor.pixels(files.read(name))
        except ImageRejectedError as error:
            return one_line(error)
        except ObjectNotFoundError:
            return "removed since it was listed"
        except MemoryError:
            return "not enough memory to decode it"

    return ordered_map(decoded, names)


def _rows(predictor: FormPredictor, part: Part, decoded: Iterator[_Pixels | str]) -> list[Row]:
    """Return the rows of one part; takes as many images from `decoded` as it has."""
    rows: list[Row] = []
    for first in range(0, len(part.names), BATCH):
        paths = part.paths[first : first + BATCH]
        images = list(itertools.islice(decoded, len(paths)))
        read = [image for image in images if not isinstance(image, str)]
        answers = iter(predictor.answers(np.stack(read)) if read else [])
        rows += [
            Row(path, error=image) if isinstance(image, str) else _row(path, next(answers))
            for path, image in zip(paths, images, strict=True)
        ]
    return rows


def _row(path: str, answer: Answer) -> Row:
    decision = answer.decision
    named = decision if isinstance(decision, str) else SET_SEPARATOR.join(decision)
    return Row(path, named, round(answer.probability, 6), answer.views)


def _as_text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
