"""Options of a source of labelled images.

Ingest's own fields describe the first source; `extra_sources` is a JSON list of further ones, each
a mapping that overrides some of these fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from components.shared.contracts.config import Config, option
from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown

EXCLUDE = "exclude"


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Config):
    """One source: a folder with a CSV, Parquet, or a tree with one folder per class."""

    data: str = option(
        "", "Images: folder with a CSV, Parquet, or one folder per class; local or s3://."
    )
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
    label_map: dict[str, str] | None = option(
        None,
        "Raw label -> class name, or 'exclude' to leave the row out; auto: labels are class names,"
        " 1 is Roadwork and 0 None where these are the classes, -1 is left out.",
        unset="auto",
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


def label_map_problems(
    sources: Sequence[SourceConfig], class_names: Sequence[str] | None
) -> list[str]:
    """Return a line for each label map that leads to no class.

    Without `class_names` the maps name the classes: where every source has a map, they must lead
    to two classes at least.
    """
    if class_names is None:
        found = classes_of_maps(sources)
        if found is None or len(found) > 1:
            return []
        return [
            f"label_map leads to {found} alone, a classifier needs two classes; map the other"
            " labels too, or set class_names"
        ]

    problems = []
    for source in sources:
        unknown = sorted(set((source.label_map or {}).values()) - set(class_names) - {EXCLUDE})
        if unknown:
            problems.append(
                f"label_map of {source.name!r} has values {unknown}, neither in"
                f" class_names={list(class_names)} nor {EXCLUDE!r}; correct them, or set"
                " class_names"
            )
    return problems


def classes_of_maps(sources: Sequence[SourceConfig]) -> list[str] | None:
    """Return the classes that label maps lead to, sorted; None where not every source has a map.

    A map that only excludes names no class.
    """
    named = [set((source.label_map or {}).values()) - {EXCLUDE} for source in sources]
    return sorted(set[str]().union(*named)) if all(named) else None


def _entries(extra_sources: str) -> list[dict[str, Any]]:
    if not extra_sources:
        return []

    entries = parse_json(extra_sources, "extra_sources", error=ConfigError)
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and e.get("data") for e in entries
    ):
        raise ConfigError(
            f"extra_sources={shown(extra_sources)} must be a JSON list of mappings, each with"
            " 'data'"
        )
    return entries
