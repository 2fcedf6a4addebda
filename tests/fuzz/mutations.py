"""Strategies: what is left of valid documents and bytes after somebody changed them."""

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

# What readers have stumbled over: types, ranges, encodings, sizes, nesting.
_NESTED: Any = "x"
for _ in range(200):
    _NESTED = [_NESTED]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, 2**53, 2**63, 10**300, 10**400, 1e308, -0.0),
    *(float("nan"), float("inf"), "", "x", "\ud800", "\x00", "a\x1b[2Jb", "a" * 1000, "../x"),
    *([], [1], [[]], [None], ["a", "a"], {}, {"a": 1}, _NESTED),
)
PIECES = (
    *(b"\r", b"\n", b"\0", b'"', b",", b"\xff", b"\xef\xbb\xbf", b"NaN", b"1e999", b"[[", b"{"),
    *(b"&a ", b"*a", b"!!x ", b"'", b": ", b"- ", b"\x1b[2J", b"\\ud800"),
)

draws = st.composite


@draws
def changed_document(draw: Callable[..., Any], document: Any) -> Any:
    """A JSON value with at most three entries replaced, removed or added."""
    value = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        value = _changed(draw, value)
    return value


def _changed(draw: Callable[..., Any], value: Any) -> Any:
    path = draw(st.sampled_from(_paths(value)))
    new = copy.deepcopy(draw(st.sampled_from(VALUES)))  # it may be changed too
    if not path:
        return new if draw(st.integers(0, 9)) == 0 else value

    holder = value
    for part in path[:-1]:
        holder = holder[part]
    how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    if how == "replace":
        holder[path[-1]] = new
    elif how == "remove":
        del holder[path[-1]]
    elif isinstance(holder, dict):
        holder[draw(st.sampled_from(["zz", "", f"{path[-1]}x", "../x", "\x1b"]))] = new
    else:
        holder.insert(0, new)
    return value


def _paths(value: Any) -> list[tuple[Any, ...]]:
    """Where a value can be changed; of long lists the first entries."""
    found: list[tuple[Any, ...]] = [()]
    entries = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        entries = enumerate(value[:5])
    for key, inner in entries:
        found += [(key, *path) for path in _paths(inner)] if len(found) < 2000 else []
    return found


@draws
def changed_bytes(draw: Callable[..., Any], data: bytes) -> bytes:
    """Bytes with one to sixteen places changed, cut, doubled, or filled with hostile pieces."""
    value = bytearray(data)
    for _ in range(draw(st.sampled_from([1, 1, 2, 4, 16]))):
        at = draw(st.integers(0, len(value)))
        how = draw(st.sampled_from(["byte", "byte", "remove", "insert", "piece", "cut"]))
        if how == "byte":
            value[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "remove":
            del value[at : at + draw(st.integers(1, 20))]
        elif how == "insert":
            value[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "piece":
            value[at:at] = draw(st.sampled_from(PIECES))
        else:
            del value[at:]
    return bytes(value)


@draws
def changed_json(draw: Callable[..., Any], data: bytes) -> bytes:
    """A JSON document changed as a value (mostly), or as bytes."""
    if draw(st.integers(0, 9)) < 3:
        return bytes(draw(changed_bytes(data)))
    return json.dumps(draw(changed_document(json.loads(data)))).encode()


def changed_file(name: str, data: bytes) -> st.SearchStrategy[bytes]:
    """A file of an artifact, changed as its kind suggests."""
    if name.endswith(".json"):
        return changed_json(data)
    if name.endswith(".npy"):
        # Mostly the header, which decides what the rest is taken for.
        return st.one_of(
            changed_bytes(data[:128]).map(lambda header: header + data[128:]), changed_bytes(data)
        )
    return changed_bytes(data)
