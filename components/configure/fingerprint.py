"""Digests of the listings of a run's data and backbone.

A listing has names and sizes, with modification times of files and ETags of stored objects; no
bytes are read. KFP's cache keys hold paths and URIs but not the bytes behind them, so the steps
that read a source have its digest in their configuration.
"""

import json
from pathlib import Path
from typing import NamedTuple

from components.shared.contracts.config import digest
from components.shared.contracts.errors import ConfigError, DataError


class Fingerprints(NamedTuple):
    """Hex digests of the listings; for a Hub repository its id, whose commit is not requested."""

    data: str
    backbone: str


def fingerprint(data: str, backbone: str, extra_sources: str = "") -> Fingerprints:
    """Return the digests of the listings of the data and of the backbone.

    Args:
        data: Folder, file or s3:// prefix of the first source.
        backbone: Folder or s3:// prefix; any other text is the id of a Hub repository.
        extra_sources: JSON list of further sources, each a mapping with "data".

    Raises:
        ConfigError: A source is not set, or `extra_sources` is malformed.
        DataError: A source does not exist or has no objects.
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

    found = digest([[place, _listing("data", place)] for place in places(data, extra_sources)])
    in_hub = not backbone.startswith("s3://") and not Path(backbone).exists()

    return Fingerprints(found, backbone if in_hub else digest(_listing("backbone", backbone)))


def places(data: str, extra_sources: str) -> list[str]:
    """Return where the images of a run are: of `data`, and of each source in the JSON list.

    Raises ConfigError for another text than a JSON list of mappings with "data".
    """
    if not extra_sources:
        return [data]
    try:
        return [data, *(str(source["data"]) for source in json.loads(extra_sources))]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"extra_sources={extra_sources!r} is not a JSON list of mappings with 'data'"
        ) from error


def _listing(name: str, place: str) -> list[list[str | int]]:
    if place.startswith("s3://"):
        return _stored_listing(name, place)

    root = Path(place)
    if not root.exists():
        raise DataError(f"{name}={place!r} does not exist")

    files = (
        sorted(entry for entry in root.rglob("*") if entry.is_file()) if root.is_dir() else [root]
    )
    described = ((file.relative_to(root).as_posix(), file.stat()) for file in files)

    return [[name, status.st_size, status.st_mtime_ns] for name, status in described]


def _stored_listing(name: str, place: str) -> list[list[str | int]]:
    from components.shared.storage import Store, split_uri

    bucket, prefix = split_uri(place)
    found = Store.from_environment().list(bucket, prefix)
    if not found:
        raise DataError(f"{name}={place!r} holds no objects; is the prefix right?")
    return [[item.key, item.size, item.etag] for item in found]
