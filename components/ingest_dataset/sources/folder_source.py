"""Source of images in a tree with one folder per class, as torchvision and HF datasets read it.

DIR/<class>/.../photo.jpg, or DIR/<part>/<class>/.../photo.jpg below train, test and the like.
"""

import functools
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from components.ingest_dataset.sources.config import EXCLUDE, SourceConfig
from components.ingest_dataset.sources.labels import need_columns
from components.ingest_dataset.sources.layout import Found
from components.ingest_dataset.sources.records import (
    WHOLE,
    Classes,
    Label,
    LabelTable,
    Part,
    Record,
    Source,
)
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of, say
from components.shared.data.files import Files


def open_folders(config: SourceConfig, files: Files, found: Found) -> Source:
    """Return the source of a tree whose layout is known.

    Attributes: `folder` is the path between the class's folder and the image, `part` the folder
    above the class's, where there is one.

    Raises:
        DataError: a column that is named does not exist, or a folder is a link.
    """
    links = files.folder_links()
    if links:
        raise DataError(
            f"{files.address}: {first_of(links)} are links to folders, whose images would be left"
            " out; put the folders themselves there"
        )

    _refuse_names(files.address, found.images.values())
    columns = ["folder", *(["part"] if found.parts else [])]
    need_columns(config, columns, (), files.address)
    if found.left_out:
        say(
            f"{files.address}: {len(found.left_out)} files beside the images are left out:"
            f" {first_of(found.left_out, most=5)}"
        )
    if config.group_column not in ("", *columns):
        say(f"{files.address}: folders name no group, every image is its own group")

    def records(classes: Classes, part: Part = WHOLE) -> Iterator[Record]:
        for path, label in found.images.items():
            name = classes[Label(label)]
            if name == EXCLUDE or not part.has(config.name, path):
                continue

            attributes = _attributes(path, parts=found.parts)
            if config.timestamp_column:
                attributes["timestamp"] = attributes[config.timestamp_column]
            group = attributes.get(config.group_column, "")
            yield Record(
                config.name, path, name, group, attributes, functools.partial(files.read, path)
            )

    table = LabelTable(files.address, [Label(label) for label in found.images.values()])
    return Source(config.name, config.label_map, [table], records, named_by_folder=True)


def _refuse_names(where: str, labels: Iterable[str]) -> None:
    """Raise DataError where the name of a class's folder is no text: it is the class's name too."""
    wrong = sorted({label for label in labels if not _is_text(label)})
    if wrong:
        raise DataError(f"{where}: names of folders are not UTF-8: {first_of(wrong)}; rename them")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _attributes(path: str, *, parts: bool) -> dict[str, str]:
    above = PurePosixPath(path).parent.parts
    below = "/".join(above[2 if parts else 1 :])
    return {"folder": below, "part": above[0]} if parts else {"folder": below}
