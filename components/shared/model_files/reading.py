"""Reading of a model folder's files: regular ones, inside the folder.

A folder is often read as a copy that has another path, so messages begin with `where`, the name
that the user knows.
"""

import stat
from pathlib import Path
from typing import Any

from components.shared.contracts.documents import MOST_BYTES, parse_json, read_bytes
from components.shared.contracts.errors import ArtifactError, PermanentError


def real_file(
    folder: Path, name: str, where: str, *, error: type[PermanentError] = ArtifactError
) -> Path:
    """Return the path of a regular file of a model folder, with links resolved.

    Raises `error` where it is missing, is no regular file, or is a link that leaves the folder.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as cause:
        reason = getattr(cause, "strerror", None) or "a link to itself"
        raise error(f"{where}: {name} cannot be read ({reason})") from cause

    if not any(real.is_relative_to(root) for root in _roots(folder)):
        raise error(f"{where}: {name} is a link out of the folder; put the file itself there")
    if not stat.S_ISREG(mode):
        raise error(f"{where}: {name} is not a regular file")

    return real


def read_document(
    folder: Path, name: str, where: str, *, error: type[PermanentError] = ArtifactError
) -> Any:
    """Return the JSON value of a file of a model folder; raises `error` for everything else."""
    file, place = real_file(folder, name, where, error=error), f"{where}: {name}"
    refuse_large(file.stat().st_size, place, error=error)
    return parse_json(read_bytes(file, error=error), place, error=error)


def refuse_large(size: int, place: str, *, error: type[PermanentError] = ArtifactError) -> None:
    """Raise `error` for a document of more than `MOST_BYTES`; `place` names it."""
    if size > MOST_BYTES:
        raise error(f"{place} has {size:,} bytes, more than {MOST_BYTES:,}")


def _roots(folder: Path) -> list[Path]:
    """Return the folders in which the files may be.

    A snapshot in the Hub's cache consists of links into the folder `blobs` of its repository.
    """
    real = folder.resolve()
    is_snapshot = real.parent.name == "snapshots"
    return [real, real.parents[1] / "blobs"] if is_snapshot else [real]
