"""Shipped recipes: YAML files of options, grouped by phase, without data and resources."""

from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent

NAMES = tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))


def read_recipe(name: str) -> dict[str, dict[str, Any]]:
    """Return the options of the recipe `name` by phase."""
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    document: dict[str, dict[str, Any]] = yaml.safe_load(text) or {}
    return document
