"""Reading of users' YAML: plain values in bounded time and memory, or ConfigError.

Plain are null, booleans, numbers, text, lists, and mappings whose keys are texts, or integers as
labels may be. Refused are aliases, of which 300 bytes make a gigabyte; tags, which construct other
objects; a key that occurs twice, of which YAML keeps the last; and merge keys, which need aliases.
Dates stay text.
"""

from pathlib import Path
from typing import Any

import yaml

from components.shared.contracts.documents import MOST_DEPTH, read_text
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown

MOST_BYTES = 128 * 2**10  # PyYAML needs up to four seconds for them
_TEXT, _INTEGER, _TIMESTAMP, _VALUE = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "timestamp", "value")
)


def read_yaml(file: Path, where: str) -> Any:
    """Return the value of a YAML file, which may be a link; `where` begins messages.

    Raises:
        ConfigError: the file is missing, special or too large, or `parse_yaml` refuses its text.
    """
    text = read_text(file, most_bytes=MOST_BYTES, linked=True, error=ConfigError)
    return parse_yaml(text, where)


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML document; None of an empty one.

    Raises:
        ConfigError: not YAML, or not plain (see above); the message has line and column.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{where}: larger than {MOST_BYTES:,} bytes")

    try:
        # PlainLoader is a SafeLoader.
        loader = _PlainLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {_reason(error)}") from None
    except ValueError as error:  # of numbers: 0b_, and integers of 4,300 digits
        raise ConfigError(f"{where}: {shown(str(error))}") from None


class _PlainLoader(yaml.SafeLoader):
    """A loader that refuses everything that is not plain, before it constructs anything."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases (*name) are not read; write the value out", event)
        if getattr(event, "anchor", None) is not None:
            raise _refused("anchors (&name) are not read; write the value out", event)
        if getattr(event, "tag", None) not in (None, "!"):
            raise _refused("tags (!name) are not read", event)

        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise _refused(f"nested deeper than {MOST_DEPTH}", event)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag not in (_TEXT, _INTEGER):
                name = shown(key.value) if isinstance(key.value, str) else "of several values"
                raise _refused(f"the key {name} is not text; put it in quotes", key)
            name = str(self.construct_object(key))
            if name in seen:
                raise _refused(f"the key {shown(name)} occurs twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_TIMESTAMP, _VALUE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _refused(reason: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=place.start_mark)


def _reason(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, without the text around it."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{shown(str(reason)).strip(chr(39))}{place}"
