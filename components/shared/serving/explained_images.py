"""Where the pictures of explanations go: one file, or a folder with one for every image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import ConfigError
from components.shared.serving.explanation_picture import write_picture

if TYPE_CHECKING:  # loads torch
    from components.shared.serving.explanation import Explanation

_SUFFIX = ".png"
_OTHER_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".pdf", ".svg", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Pictures:
    """The file of each image's picture."""

    files: dict[int, Path]

    @classmethod
    def planned(cls, target: Path, images: Sequence[Path], bundle: Path) -> "Pictures":
        """Choose the files, before anything is computed; a folder is made.

        A name that ends in .png is the file of a single image. Any other name is a folder, which
        gets STEM.png for each image, with -2, -3, ... where several have the same stem.

        Raises:
            ConfigError: One file for several images, another kind of picture, a place that cannot
                be written, an image that would be overwritten, or a place inside the bundle.
        """
        where = f"--explain={str(target)!r}"
        inside = target.resolve()
        if bundle.resolve() in (inside, *inside.parents):
            raise ConfigError(f"{where}: is inside the bundle, whose files are sealed; use another")

        suffix = target.suffix.lower()
        if suffix in _OTHER_PICTURES:
            raise ConfigError(f"{where}: explanations are PNG; use {target.stem}.png or a folder")
        if suffix == _SUFFIX and not target.is_dir():
            if len(images) > 1:
                raise ConfigError(
                    f"{where}: is one picture, and there are {len(images)} images; use a folder"
                )
            if not target.absolute().parent.is_dir():
                raise ConfigError(f"{where}: {str(target.parent)!r} is no folder; make it first")
            files = {0: target}
        else:
            files = dict(enumerate(_names(target, images)))
            try:
                target.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{where}: cannot be a folder ({error.strerror})") from error

        given = {image.resolve() for image in images}
        for file in files.values():
            if file.resolve() in given:
                raise ConfigError(f"{where}: would overwrite the image {str(file)!r}; use another")
        return cls(files)

    def write(
        self,
        number: int,
        photograph: npt.NDArray[np.uint8],
        explanation: "Explanation",
        decision: str,
    ) -> dict[str, Any]:
        """Draw the picture of image `number`; return what the answer's line says of it.

        Raises:
            ConfigError: The file cannot be written.
        """
        file = self.files[number]
        try:
            write_picture(file, photograph, explanation, decision)
        except OSError as error:
            raise ConfigError(f"--explain: {str(file)!r} cannot be written: {error}") from error

        numbers = {
            "margin": explanation.margin,
            "patches": float(explanation.patches.sum()),
            "cls": explanation.cls,
            "constant": explanation.constant,
            "cls_share": explanation.cls_share,
        }
        found: dict[str, Any] = {"file": str(file), "outcome": explanation.outcome}
        found |= {name: round(value, 6) for name, value in numbers.items()}
        return found if explanation.view is None else found | {"view": explanation.view}


def _names(folder: Path, images: Sequence[Path]) -> list[Path]:
    """Return a file of the folder for every image; no two are equal, also ignoring case."""
    taken: set[str] = set()
    files = []
    for image in images:
        name, number = image.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{image.stem}-{number}"
        taken.add(name.casefold())
        files.append(folder / f"{name}{_SUFFIX}")
    return files
