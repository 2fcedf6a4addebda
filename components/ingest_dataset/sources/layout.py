"""What the names of a source's files say: a CSV, Parquet, or one folder per class.

Upload and ingest decide by the same function, from a listing alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of
from components.shared.data.files import PARQUET, is_hidden, is_image

LABELS = "labels.csv"
# Folders that Hugging Face datasets takes for parts of the data, not for classes.
_PARTS = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
# What lies beside images and is none. Everything else in a class's folder is tried as an image:
# its content decides, and no photograph is left out without a word.
_BESIDE = (
    *(".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".tsv", ".txt", ".xml"),
    *(".yaml", ".yml"),
)


class Layout(Enum):
    """How a source says the labels of its images."""

    CSV = "csv"
    PARQUET = "parquet"
    FOLDERS = "folders"


@dataclass(frozen=True)
class Found:
    """A layout and the files that belong to it.

    Attributes:
        layout: how labels are given.
        tables: the CSV, or the Parquet files.
        images: for folders: the label of each image by its name.
        parts: for folders: whether a folder of a part (train, test) is above those of classes.
        left_out: for folders: files that are no images.
    """

    layout: Layout
    tables: list[str] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    parts: bool = False
    left_out: list[str] = field(default_factory=list)


def layout_of(names: Iterable[str], csv: str = LABELS) -> Found:
    """Return the layout of files of these names; a CSV takes precedence over Parquet over folders.

    Args:
        names: POSIX paths below the source's address.
        csv: name of the CSV.

    Raises:
        DataError: it is none of the three, or which folders are classes is not clear.
    """
    every = sorted(names)
    if csv in every:
        return Found(Layout.CSV, [csv])
    listed = [name for name in every if not is_hidden(name)]
    parquet = [name for name in listed if name.endswith(PARQUET)]
    if parquet:
        return Found(Layout.PARQUET, parquet)

    _refuse_other_tables(listed, csv)
    folders = {name.rpartition("/")[0] for name in listed if "/" in name and is_image(name)}
    if not folders:
        raise DataError(_nothing(listed, csv))

    loose = [name for name in listed if "/" not in name and is_image(name)]
    if loose:
        raise DataError(
            f"{len(loose)} images are in no class's folder ({first_of(loose, most=5)}); move them,"
            f" or list all images in {LABELS}"
        )

    images = [
        name
        for name in listed
        if name.rpartition("/")[0] in folders and not name.lower().endswith(_BESIDE)
    ]
    return _class_folders(images, sorted({*listed} - {*images}))


def _class_folders(images: list[str], left_out: list[str]) -> Found:
    """Return the classes by folder: the first one, or the second below train, test and the like."""
    first = {name.partition("/")[0] for name in images}
    parts = all(folder.lower() in _PARTS for folder in first)
    depth = 1 if parts else 0
    shallow = [name for name in images if name.count("/") <= depth]
    if shallow:
        raise DataError(
            f"{first_of(sorted(first))} are parts of the data, not classes, and"
            f" {len(shallow)} images are in no class's folder below ({first_of(shallow, most=5)});"
            f" use one folder per class, or list all images in {LABELS}"
        )

    labels = {name: name.split("/")[depth] for name in images}
    if len(set(labels.values())) < 2:
        alone = "/".join(images[0].split("/")[: depth + 1])
        raise DataError(
            f"{alone!r} is the only folder with images, and a folder is a class; give the folder"
            f" that holds the classes' folders, or list all images in {LABELS}"
        )

    return Found(Layout.FOLDERS, images=labels, parts=parts, left_out=left_out)


def _refuse_other_tables(names: list[str], csv: str) -> None:
    """Raise DataError where a table lies beside the folders: it may hold the labels.

    Also where the user has named a table that is not there.
    """
    tables = [name for name in names if "/" not in name and name.lower().endswith(".csv")]
    nested = [name for name in names if name.endswith(f"/{csv}")]
    if tables:
        raise DataError(
            f"has {first_of(tables, most=5)} but no {csv}; name the table {LABELS}, give its name"
            " with csv=..., or remove it if the folders are the classes"
        )
    if nested:
        raise DataError(f"has its {csv} in a folder below ({nested[0]}); give that folder")
    if csv != LABELS:
        raise DataError(_nothing(names, csv))


def _nothing(names: list[str], csv: str) -> str:
    """Why a folder with these files is no source, and what would be."""
    flat = [name for name in names if "/" not in name and is_image(name)]
    found = f" ({len(flat)} images without labels)" if flat else ""
    return (
        f"holds neither {csv} nor Parquet files nor a folder of images per class{found}; list"
        f" path and label of every image in {csv}, name another CSV with csv=..., or sort the"
        " images into one folder per class"
    )
