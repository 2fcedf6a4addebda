"""Declaration and validation of a phase's options, each written once.

Each phase has one frozen dataclass derived from `Config`. A field is declared by `option(default,
help, ...)`; options that phases share are mixins in `options.py`. Types, ranges and choices are
validated by pydantic on construction, all problems in one error. The run form, the command line and
the reference pages are derived from the fields.

The fields are a dataclass's and not those of a pydantic model: a command that constructs no
configuration does not load pydantic, whose import and first model take 0.08 s and 10 MB.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import shown
from components.shared.contracts.redaction import carries_credential

# The words for None in YAML and on the command line.
Unset = Literal["auto", "none"]

MOST_INTEGER = 2**53  # KFP hands numbers over as doubles
_MOST_UNKNOWN = 20
_LONGEST_WORD = 100
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_BOUND_OF_ERROR = {
    "greater_than_equal": "ge",
    "greater_than": "gt",
    "less_than_equal": "le",
    "less_than": "lt",
}
_TYPE_OF_ERROR = {
    "int_type": "int",
    "float_type": "float",
    "string_type": "str",
    "bool_type": "bool",
    "tuple_type": "a list",
    "dict_type": "a mapping",
}


@dataclass(frozen=True)
class Range:
    """Numbers among which a search draws an option, both ends included.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether they are drawn uniformly on a logarithmic scale.
        relative: Whether the ends are factors of the value that the option has without a search.
    """

    low: float
    high: float
    log: bool = False
    relative: bool = False


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
    unset: Unset | None = None,
    search: Range | bool = False,
) -> Any:
    """Declare a documented field of a configuration.

    Args:
        default: Value where none is given. A mapping is copied for every configuration.
        help: One sentence for the form, the command line and the reference.
        ge: Lower bound of a number, or of each number in a list; `gt`, `le` and `lt` accordingly.
        choices: Accepted strings.
        unset: The word for None in YAML and text, where None is accepted: "auto" for a value that
            is chosen automatically, "none" for a feature that is off. If the field's type excludes
            None, the class resolves it on construction in `automatic`. A default of None needs it:
            KFP's parameters have no null.
        search: Values that a search of options tries; true: all of `choices`.

    Raises:
        ValueError: The default is None and has no word.
    """
    if default is None and unset is None:
        raise ValueError(f"an option with the default None needs unset=...: {help}")
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {"help": help, **bounds, "choices": choices, "unset": unset, "search": search}
    return _field(default, metadata)


def adjusted(base: type["Config"], name: str, **changes: Any) -> Any:
    """Redeclare an inherited option with other arguments of `option`; the rest stays."""
    field = base.__dataclass_fields__[name]
    default = changes.pop("default", field.default)
    if default is dataclasses.MISSING:
        default = field.default_factory()  # type: ignore[operator]
    return _field(default, {**field.metadata, **changes, "adjusts": base})


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every phase's configuration; construction raises ConfigError with all problems."""

    # Options that only `phase.option` sets, because their bare name means another phase's. Without
    # annotation: a dataclass would list it among its fields.
    QUALIFIED = frozenset[str]()

    def __post_init__(self) -> None:
        problems = list(_validate(self))
        if not problems:
            given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
            resolved = {
                name: value for name, value in self.automatic().items() if given[name] is None
            }
            for name, value in resolved.items():
                object.__setattr__(self, name, value)
            object.__setattr__(self, "_resolved", frozenset(resolved))
            problems = list(self.check())

        if problems:
            raise ConfigError(f"{type(self).__name__}: " + "; ".join(problems), problems)

    def automatic(self) -> Mapping[str, Any]:
        """Return the values of options that are left automatic, from the values of others."""
        return {}

    def check(self) -> list[str]:
        """Return the problems that concern several fields at once."""
        return []

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from JSON-like values; unknown keys are refused with the nearest known name."""
        known = [field.name for field in dataclasses.fields(cls)]
        problems = unknown_keys(values, known)
        if problems:
            raise ConfigError(f"{cls.__name__}: " + "; ".join(problems), problems)
        return cls(**values)

    def to_json(self, *, resolved: bool = True) -> dict[str, Any]:
        """Return JSON-compatible values, tuples as lists.

        With `resolved=False`, automatic options are None again, as they were given.
        """
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if not resolved:
            values |= dict.fromkeys(getattr(self, "_resolved"))  # noqa: B009 - not a field
        return values

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return digest(self.to_json())


def canonical_json(value: Any) -> str:
    """Stable serialisation for digests: sorted keys, no whitespace, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def unknown_keys(given: Iterable[object], known: Sequence[str]) -> list[str]:
    """Return a line for each key that is not known, with the closest known one.

    Of more than twenty the others are counted: the search for a close one takes a millisecond.
    """
    unknown = [key for key in given if key not in known]
    lines = [_unknown_key(key, known) for key in unknown[:_MOST_UNKNOWN]]
    n_more = len(unknown) - len(lines)
    return lines + ([f"{n_more} more unknown keys"] if n_more else [])


def close_match(text: str, known: Iterable[str]) -> str | None:
    """Return the known word that is closest to a text, or None; the text may be of any length."""
    close = difflib.get_close_matches(text[:_LONGEST_WORD], known, n=1)
    return close[0] if close else None


def _unknown_key(key: object, known: Sequence[str]) -> str:
    if not isinstance(key, str):
        return f"key {shown(key)} must be text"
    close = close_match(key, known)
    hint = f"did you mean {close!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"unknown key {shown(key)}, {hint}"


def accepted_values(field: "dataclasses.Field[Any]") -> str:
    """Return the choices or the range of an option as text; empty where its type says all."""
    metadata = field.metadata
    parts = [", ".join(metadata["choices"])] if metadata["choices"] else []
    parts += [f"{sign} {metadata[k]}" for k, sign in _BOUNDS.items() if metadata[k] is not None]
    if metadata["unset"]:
        parts.append(f"or {metadata['unset']}" if parts else metadata["unset"])
    return ", ".join(parts)


def shown_default(config_class: type[Config], name: str) -> str:
    """Return an option's default as JSON, or as the word for None."""
    value = config_class().to_json(resolved=False)[name]
    word = config_class.__dataclass_fields__[name].metadata["unset"]
    return word if value is None and word else json.dumps(value)


@functools.cache
def _validator(config_class: Any) -> Any:
    """Return the pydantic model that validates a class's fields, built once per class."""
    from pydantic import ConfigDict, create_model

    hints = typing.get_type_hints(config_class)
    annotations = {
        field.name: (_annotated(hints[field.name], field.metadata), ...)
        for field in dataclasses.fields(config_class)
    }
    # Names like `model_version` are no concern of pydantic's.
    settings = ConfigDict(protected_namespaces=())

    return create_model(config_class.__name__, __config__=settings, **annotations)  # type: ignore[call-overload]


def _annotated(hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Return the annotation with its constraints, for values from JSON, YAML and KFP."""
    from pydantic import AfterValidator, BeforeValidator, Field

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union) or metadata.get("unset"):
        inner = next((a for a in arguments if a is not types.NoneType), hint)
        word = metadata.get("unset")
        plain = _annotated(inner, {**metadata, "unset": None})
        return Annotated[plain | None, BeforeValidator(lambda v: None if v == word else v)]

    if origin is tuple:
        return tuple[_annotated(arguments[0], metadata), ...]  # type: ignore[misc]

    if origin is dict:
        # One order, so that equal mappings have equal cache keys.
        mapping = types.GenericAlias(dict, tuple(_annotated(a, {}) for a in arguments))
        return Annotated[mapping, AfterValidator(lambda v: dict(sorted(v.items())))]

    bounds = {key: metadata[key] for key in _BOUNDS if metadata.get(key) is not None}
    if metadata.get("choices"):
        return Literal[metadata["choices"]]
    if hint is int:
        return Annotated[int, Field(strict=True, **bounds), BeforeValidator(_whole)]
    if hint is float:
        return Annotated[
            float, Field(strict=True, allow_inf_nan=False, **bounds), BeforeValidator(_in_double)
        ]

    return hint if hint is Any else Annotated[hint, Field(strict=True)]


def _whole(value: Any) -> Any:
    """Return a whole double as an integer: KFP hands every number over as a double."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_double(value: Any) -> Any:
    """Return an integer that no double holds as infinity, which is refused by name."""
    if type(value) is not int or abs(value) <= sys.float_info.max:
        return value
    return math.inf


def _validate(config: Config) -> Iterator[str]:
    """Set the fields to values of their declared types; yield a line for each that has none."""
    from pydantic import ValidationError

    config_class: Any = type(config)
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    try:
        values = vars(_validator(config_class).model_validate(given))
    except ValidationError as error:
        for found in error.errors(include_url=False, include_context=False):
            yield _problem(config, found)
        return

    for name, value in values.items():
        if carries_credential(value):
            # Values of options are shown by Kubeflow and recorded in artifacts.
            yield (
                f"{name}={shown(value)} carries a credential; take it out, and set"
                f" {Variable.S3_ACCESS_KEY} and {Variable.S3_SECRET_KEY} for an object store,"
                f" {Variable.HUB_TOKEN} for the Hub"
            )
        object.__setattr__(config, name, value)


def _problem(config: Config, error: Mapping[str, Any]) -> str:
    """Return one line: option, value, and what is expected."""
    name, *inside = (part for part in error["loc"] if part != "[key]")
    metadata = config.__dataclass_fields__[name].metadata
    value, kind = error["input"], error["type"]
    where = name + "".join(f"[{shown(key)}]" for key in inside)
    word = metadata["unset"]

    if kind in _BOUND_OF_ERROR:
        key = _BOUND_OF_ERROR[kind]
        expected = f"must be {_BOUNDS[key]} {metadata[key]}" + (f", or {word}" if word else "")
    elif kind == "literal_error":
        expected = f"must be one of {', '.join(metadata['choices'])}"
    elif kind in _TYPE_OF_ERROR:
        wanted = _TYPE_OF_ERROR[kind] + (f" or {word}" if word else "")
        expected = f"must be {wanted}, got {type(value).__name__}"
    elif kind == "finite_number" or (isinstance(value, float) and not math.isfinite(value)):
        expected = "must be finite"
    else:
        expected = f"is invalid: {shown(error['msg'])}"

    return f"{where}={shown(value)} {expected}"
