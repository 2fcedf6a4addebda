"""Generated folders: recognised when complete, written aside and moved into place as a whole."""

import functools
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.documents import read_json
from components.shared.contracts.errors import ArtifactError, DataError
from pipelines.ownership import locked

MARKER = "demo.json"


def publish(folder: Path, parameters: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Give `folder` the content that `write` puts into an empty directory, unless it is complete.

    A folder is complete if its marker, written last, names the same parameters, the same generator
    code and the files' number and bytes. Generated folders that differ are replaced. Of two
    processes, the second waits for the first and finds its folder.

    Args:
        folder: The folder.
        parameters: Parameters of the generator, for the marker.
        write: Writes the content into the directory that it is given.

    Raises:
        DataError: `folder` holds anything else.
    """
    wanted = {"parameters": parameters, "code": _code_digest()}
    staging, replaced = (
        folder.with_name(f".{folder.name}.{end}") for end in ("partial", "replaced")
    )
    folder.parent.mkdir(parents=True, exist_ok=True)

    with locked(folder.parent):
        for leftover in (staging, replaced):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        if _is_complete(folder, wanted):
            return
        if folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir()):
            raise DataError(
                f"{folder}: not empty and without {MARKER}, so not generated demo data; choose"
                " another folder"
            )

        try:
            staging.mkdir()
            write(staging)
            write_json(staging / MARKER, wanted | _extent(staging))
            if folder.exists():
                folder.replace(replaced)
            staging.replace(folder)
        finally:
            for leftover in (staging, replaced):
                shutil.rmtree(leftover, ignore_errors=True)


def _is_complete(folder: Path, wanted: dict[str, Any]) -> bool:
    try:
        recorded = read_json(folder / MARKER)
    except ArtifactError:  # none, half of one, or another file
        return False
    return bool(recorded == wanted | _extent(folder))


def _extent(folder: Path) -> dict[str, int]:
    sizes = [
        file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file() and file != folder / MARKER
    ]
    return {"files": len(sizes), "bytes": sum(sizes)}


@functools.cache
def _code_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
