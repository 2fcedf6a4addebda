"""Declaration of a phase's options: one frozen dataclass, from which form, command line and checks
are derived.

Each phase has one frozen dataclass derived from `Config`. A field is declared with `option(default,
help, ...)`; types, ranges and choices are checked on construction, all problems in one error.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import operator
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from components.shared.contracts.errors import ConfigError


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A documented dataclass field. `ge/gt/le/lt` bound numbers (each element of a sequence),
    `choices` strings.
    """
    metadata = {"help": help, "ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every phase's configuration. Construction raises ConfigError naming every invalid
    field.
    """

    def __post_init__(self) -> None:
        problems = list(_coerce_fields(self)) or list(self.check())
        if problems:
            raise ConfigError(f"{type(self).__name__}: " + "; ".join(problems), problems)

    def check(self) -> list[str]:
        """Problems that concern several fields at once; overridden by phases that have any."""
        return []

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from JSON-like values; unknown keys are refused with the nearest known name."""
        known = [field.name for field in dataclasses.fields(cls)]
        problems = [unknown_key(key, known) for key in values if key not in known]
        if problems:
            raise ConfigError(f"{cls.__name__}: " + "; ".join(problems), problems)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """JSON-compatible values: tuples become lists."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Stable serialisation for digests: sorted keys, no whitespace, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def unknown_key(key: str, known: list[str]) -> str:
    """One line for an unknown key, with the closest known one."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"unknown key {key!r}, {hint}"


def _coerce_fields(config: Config) -> typing.Iterator[str]:
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        try:
            value = _coerce(value, hints[field.name])
        except TypeError as error:
            yield f"{field.name}={value!r} {error}"
            continue
        object.__setattr__(config, field.name, value)
        yield from _range_problems(field.name, value, field.metadata)


def _coerce(value: Any, hint: Any) -> Any:
    """`value` as the annotated type, accepting what JSON and the KFP form produce; TypeError says
    what was expected.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"must be a list, got {type(value).__name__}")
        return tuple(_coerce(item, arguments[0]) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise TypeError(f"must be a mapping, got {type(value).__name__}")
        return {
            _coerce(k, arguments[0]): _coerce(v, arguments[1]) for k, v in sorted(value.items())
        }
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)  # KFP hands every number over as a double
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise TypeError(f"must be {hint.__name__}, got {type(value).__name__}")
    if hint is float and not math.isfinite(value):
        raise TypeError("must be finite")
    return value


def _range_problems(name: str, value: Any, metadata: Mapping[str, Any]) -> typing.Iterator[str]:
    checks = (
        ("ge", ">=", operator.ge),
        ("gt", ">", operator.gt),
        ("le", "<=", operator.le),
        ("lt", "<", operator.lt),
    )
    for item in value if isinstance(value, tuple) else (value,):
        if item is None:
            continue
        for key, sign, holds in checks:
            bound = metadata.get(key)
            if bound is not None and not holds(item, bound):
                yield f"{name}={item!r} must be {sign} {bound}"
        choices = metadata.get("choices")
        if choices is not None and item not in choices:
            yield f"{name}={item!r} must be one of {', '.join(choices)}"
