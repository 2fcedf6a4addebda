"""Which repository of the Hugging Face Hub a backbone is, if it is none of folder and s3://."""

import difflib
import os
import re

from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import shown

SCHEME = "hf://"
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_ALIKE = 0.75  # of difflib: one wrong letter among four


def hub_id(backbone: str) -> str | None:
    """Return the id of a Hub repository, or None where `backbone` is a file, a folder or s3://.

    The Hub is asked with the user's token, and learns the name that it is asked for. A path with a
    spelling mistake must not get there: `hf://owner/name` always is an id, `owner/name` only where
    no folder of this or a similar name is here.

    Raises:
        DataError: it is neither; the message has both readings.
    """
    if backbone.startswith(SCHEME):
        given = backbone.removeprefix(SCHEME)
        if not _ID.fullmatch(given):
            raise DataError(f"backbone={shown(backbone)} is no hub id, which is hf://owner/name")
        return given

    if backbone.startswith("s3://") or os.path.lexists(backbone):
        return None

    neither = f"backbone={shown(backbone)} does not exist as a folder"
    if not _ID.fullmatch(backbone):
        raise DataError(
            f"{neither}, and a hub id is owner/name; correct the path, or write hf://owner/name"
        )

    alike = _folder_like(backbone.partition("/")[0])
    if alike:
        raise DataError(
            f"{neither}, and the hub is not asked for it, because there is a folder {alike!r} here;"
            f" correct the path, or write {SCHEME}{backbone}"
        )
    return backbone


def _folder_like(name: str) -> str | None:
    """Return a folder here whose name is `name` or resembles it."""
    with os.scandir() as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
    found = difflib.get_close_matches(name, folders, n=1, cutoff=_ALIKE)
    return found[0] if found else None
