"""Digests of the listings of a run's data and backbone.

A listing has names and sizes, with modification times of files and ETags of stored objects; no
bytes are read. KFP's cache keys hold paths and URIs but not the bytes behind them, so the steps
that read a source have its digest in their configuration.
"""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from components.shared.contracts.config import digest
from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import ConfigError, DataError, one_line
from components.shared.contracts.hub_ids import hub_id
from components.shared.contracts.listing import shown


class Fingerprints(NamedTuple):
    """Hex digests of the listings; for a Hub repository its id, whose commit is not requested."""

    data: str
    backbone: str


def fingerprint(
    data: str, backbone: str, extra_sources: str = "", corrections: Mapping[str, str] | None = None
) -> Fingerprints:
    """Return the digests of the listings of the data and of the backbone.

    Args:
        data: Folder, file or s3:// prefix of the first source.
        backbone: Folder, s3:// prefix, or id of a Hub repository (`hub_id`).
        extra_sources: JSON list of further sources, each a mapping with "data".
        corrections: Files by the option that names them; an empty name is none. They are part of
            what the data are.

    Raises:
        ConfigError: A source is not set, or `extra_sources` is malformed.
        DataError: A source or a file does not exist or has no objects, or `backbone` is no hub id
            either.
    """
    if not data:
        raise ConfigError(
            "data='' is not set; give a folder with a CSV, Parquet, or a folder with one folder per"
            " class"
        )
    if not backbone:
        raise ConfigError(
            "backbone='' is not set; give a Hugging Face folder, local or s3://, or a hub id"
        )

    listed: list[list[object]] = [
        [place, _listing("data", place)] for place in _places(data, extra_sources)
    ]
    listed += [
        [option, file, _file_listing(option, file)]
        for option, file in (corrections or {}).items()
        if file
    ]

    return Fingerprints(digest(listed), hub_id(backbone) or digest(_listing("backbone", backbone)))


def file_fingerprint(option: str, file: str) -> str:
    """Return the digest of the listing of one file, which `option` names; raises DataError."""
    return digest([file, _file_listing(option, file)])


def _places(data: str, extra_sources: str) -> list[str]:
    """Return where the images of a run are: of `data`, and of each source in the JSON list.

    Raises ConfigError for another text than a JSON list of mappings with "data".
    """
    if not extra_sources:
        return [data]
    entries = parse_json(extra_sources, "extra_sources", error=ConfigError)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("data"), str) for entry in entries
    ):
        raise ConfigError(
            f"extra_sources={shown(extra_sources)} is not a JSON list of mappings with 'data'"
        )
    return [data, *(entry["data"] for entry in entries)]


def exists(place: str) -> bool:
    """Return whether there is such a file or folder; a path that is none does not exist."""
    try:
        return Path(place).exists()
    except OSError:  # longer than a path may be, or circular
        return False


def _listing(name: str, place: str) -> list[list[str | int]]:
    if place.startswith("s3://"):
        return _stored_listing(name, place)

    root = Path(place)
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
        if is_folder:
            next(root.iterdir(), None)  # rglob is silent about a folder that it may not list
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{name}={shown(place)} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{name}={shown(place)} cannot be read ({reason})") from error

    files = sorted(root.rglob("*")) if is_folder else [root]
    return [entry for file in files for entry in _described(file, root)]


def _file_listing(name: str, file: str) -> list[list[str | int]]:
    """Return the listing of one file; other objects whose keys begin with its own are not in it."""
    if not file.startswith("s3://"):
        if Path(file).is_dir():
            raise DataError(f"{name}={shown(file)} is a folder; give a CSV")
        return _listing(name, file)

    from components.shared.storage import split_uri

    _, key = split_uri(file)
    found = [entry for entry in _stored_listing(name, file) if entry[0] == key]
    if not found:
        raise DataError(f"{name}={shown(file)} is no object, but the beginning of others' names")
    return found


def _described(file: Path, root: Path) -> list[list[str | int]]:
    """Return name, size and time of a file; nothing of what is no file or leads to none.

    One such entry must not end the run: ingest reads what the table lists, and rejects it there.
    """
    try:
        status = file.stat()
    except OSError:
        return []
    if not stat.S_ISREG(status.st_mode):
        return []

    # A name that is no UTF-8 has no digest otherwise.
    name = file.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()
    return [[name, status.st_size, status.st_mtime_ns]]


def _stored_listing(name: str, place: str) -> list[list[str | int]]:
    from components.shared.storage import Store, split_uri

    bucket, prefix = split_uri(place)
    found = Store.from_environment().list(bucket, prefix)
    if not found:
        raise DataError(f"{name}={shown(place)} holds no objects; is the prefix right?")
    return [[item.key, item.size, item.etag] for item in found]
