"""Selection of the files that belong to a data set or a backbone.

A folder that is neither is refused.

What is refused here would be refused by the first steps of a run, after minutes instead of before
the upload.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from components.ingest_dataset.sources.layout import LABELS, Layout, layout_of
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import first_of
from components.shared.contracts.regular_files import check_regular
from components.shared.data.files import PARQUET

CONFIG, SAFETENSORS, INDEX_SUFFIX = "config.json", ".safetensors", ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
# Beside the weights: preprocessing, and the licence, which travels with what is derived from them.
_BESIDE = (
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "README.md",
)
_NAME_BYTES = 768  # S3's limit for a key is 1024, prefix included
_NAMED = 5


@dataclass(frozen=True, order=True)
class LocalFile:
    """A file to upload. name: POSIX path below the address; size in bytes."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True)
class Selection:
    """What is uploaded. kind: "data" or "backbone".

    Left_out: names of files that no step would read.
    """

    kind: str
    files: tuple[LocalFile, ...]
    left_out: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


def select(source: Path) -> Selection:
    """Return the files of the data set (folder or Parquet file) or of the backbone at `source`.

    Raises DataError where it is neither, or holds what cannot be sent.
    """
    if source.is_file() and source.suffix != PARQUET:
        raise DataError(
            f"{source}: is a file but not {PARQUET}; give the folder of a data set or of a backbone"
        )
    if not source.exists():
        raise DataError(f"{source}: does not exist; give the folder of a data set or of a backbone")

    files = files_below(source)
    names = {file.name for file in files}
    has_table = LABELS in names or any(name.endswith(PARQUET) for name in names)
    if CONFIG in names and not has_table:
        return _backbone(source, files)

    try:
        found = layout_of(names)
    except DataError as error:
        raise DataError(f"{source}: {_neither(names) or error}") from None

    _refuse_links_out(source, files)
    if found.layout is not Layout.FOLDERS:
        return Selection("data", files)
    images = tuple(file for file in files if file.name in found.images)
    left_out = sorted(names - found.images.keys())
    return Selection("data", images, tuple(left_out))


def files_below(source: Path) -> tuple[LocalFile, ...]:
    """Every file of a folder, or a single file, sorted by name.

    Raises DataError for what cannot become an object.

    Links to folders are refused, since the steps of a local run do not follow them either.
    """
    root = source.parent if source.is_file() else source
    paths = [source] if source.is_file() else list(_walk(source))
    files = [
        LocalFile(path.relative_to(root).as_posix(), path, path.stat().st_size) for path in paths
    ]

    for file in files:
        try:
            size = len(file.name.encode())
        except UnicodeEncodeError:
            raise DataError(
                f"{source}: the name {file.name!r} is not UTF-8; rename the file"
            ) from None

        if size > _NAME_BYTES:
            raise DataError(
                f"{source}: the name {file.name[:60]!r}... has {size} bytes; at most"
                f" {_NAME_BYTES} fit"
            )

    return tuple(sorted(files))


def is_table(name: str) -> bool:
    """Return whether this file alone makes the steps recognise a data set or a backbone.

    Such a file is uploaded after all others. A tree with one folder per class has none.
    """
    return name in (LABELS, CONFIG) or name.endswith((PARQUET, SAFETENSORS, INDEX_SUFFIX))


def _walk(source: Path) -> Iterable[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: may not be listed ({error.strerror})")

    for folder, folders, names in os.walk(source, onerror=refuse):
        for name in folders:
            if Path(folder, name).is_symlink():
                raise DataError(
                    f"{Path(folder, name)}: is a link to a folder; put the folder itself there"
                )

        for name in names:
            path = Path(folder, name)
            try:
                check_regular(path)
            except OSError as error:
                raise DataError(
                    f"{path}: is not a file that can be read ({error.strerror}; a broken link?);"
                    " remove it"
                ) from None
            yield path


def links_out(source: Path, files: Iterable[LocalFile]) -> tuple[LocalFile, ...]:
    """Return the files that are links to what lies elsewhere on this machine."""
    root = (source.parent if source.is_file() else source).resolve()
    return tuple(
        file
        for file in files
        if file.path.is_symlink() and not file.path.resolve().is_relative_to(root)
    )


def _refuse_links_out(source: Path, files: Iterable[LocalFile]) -> None:
    """Raise DataError for a data set's links; those of the hub's cache, of backbones, lead out."""
    for file in links_out(source, files):
        raise DataError(f"{file.path}: is a link out of the folder; put the file itself there")


def _backbone(source: Path, files: tuple[LocalFile, ...]) -> Selection:
    """The files that `import_backbone` reads; pickles among the others are never sent."""
    selected = [file for file in files if _belongs(file.name)]
    left_out = sorted({file.name for file in files} - {file.name for file in selected})
    if not any(file.name.endswith(SAFETENSORS) for file in selected):
        pickles = [name for name in left_out if name.endswith(PICKLES)]
        found = (
            f", only {first_of(pickles, most=_NAMED)}: a pickle runs code when it is read; convert"
            " it with save_pretrained()"
        )
        raise DataError(
            f"{source}: has {CONFIG} but no"
            f" {SAFETENSORS}{found if pickles else '; give the whole folder'}"
        )

    return Selection("backbone", tuple(selected), tuple(left_out))


def _belongs(name: str) -> bool:
    return (
        name == CONFIG
        or name in _BESIDE
        or ("/" not in name and name.endswith((SAFETENSORS, INDEX_SUFFIX)))
    )


def _neither(names: set[str]) -> str:
    """Why a folder with these files is no backbone, and what to do; "" where it has no weights."""
    weights = sorted(name for name in names if name.endswith((SAFETENSORS, *PICKLES)))
    if not names:
        return "is empty; give the folder of a data set or of a backbone"
    if weights:
        named = first_of(weights, most=_NAMED)
        return f"has {named} but no {CONFIG}; give a Hugging Face model folder"
    return ""
