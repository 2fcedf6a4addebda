"""Options of a source of labelled images.

Ingest's own fields describe the first source; `extra_sources` is a JSON list of further ones, each
a mapping that overrides some of these fields.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from components.shared.contracts.config import Config, option
from components.shared.contracts.errors import ConfigError

EXCLUDE = "exclude"


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Config):
    """One source: a folder with a CSV, or Parquet in the Hugging Face image layout."""

    data: str = option("", "Images: folder with a CSV, or Parquet file or folder, local or s3://.")
    source_name: str = option(
        "", "Name of the source in every sample's record; empty: the folder's or file's name."
    )
    csv: str = option("labels.csv", "Name of the CSV inside the folder.")
    path_column: str = option("path", "CSV column with the image path, relative to the folder.")
    label_column: str = option("label", "Column with the raw label.")
    group_column: str = option(
        "group", "Column of the place, video or drive (nested: video_info.vid_id); empty: none."
    )
    timestamp_column: str = option("", "Column with the time of the image; empty: none.")
    label_map: dict[str, str] = option(
        {"0": "None", "1": "Roadwork", "-1": "exclude"},
        "Raw label -> class name, or 'exclude' to leave the row out.",
    )

    @property
    def name(self) -> str:
        """`source_name`, or the last part of `data` without suffix."""
        return self.source_name or PurePosixPath(self.data.rstrip("/")).stem or "source"


def all_sources(first: SourceConfig, extra_sources: str) -> list[SourceConfig]:
    """Return `first` and the sources of the JSON list `extra_sources`, in this order.

    Raises:
        ConfigError: the list is malformed, or two sources have one name.
    """
    common = {field.name: getattr(first, field.name) for field in fields(SourceConfig)}
    sources = [SourceConfig(**common)]
    for entry in _entries(extra_sources):
        sources.append(SourceConfig.from_mapping({**common, "source_name": "", **entry}))
    names = [source.name for source in sources]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"source names {repeated} occur twice; give each entry of extra_sources a source_name"
        )

    return sources


def label_map_problems(source: SourceConfig, class_names: Sequence[str]) -> list[str]:
    """Return one line if the label map has values that are no classes."""
    unknown = sorted(set(source.label_map.values()) - set(class_names) - {EXCLUDE})
    if not unknown:
        return []
    return [
        f"label_map of {source.name!r} has values {unknown}, neither in class_names nor {EXCLUDE!r}"
    ]


def _entries(extra_sources: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(extra_sources) if extra_sources else []
    except ValueError as error:
        raise ConfigError(f"extra_sources={extra_sources!r} is not valid JSON ({error})") from error

    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and e.get("data") for e in entries
    ):
        raise ConfigError(
            f"extra_sources={extra_sources!r} must be a JSON list of mappings, each with 'data'"
        )
    return entries
