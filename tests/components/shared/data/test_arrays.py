"""Arrays: those of the expected dtype and shape, or one typed error before they are read."""

import io
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.contracts.errors import ArtifactError
from components.shared.data.arrays import load_array


def _bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype.hasobject)
    return stream.getvalue()


GOOD = _bytes(np.arange(6, dtype=np.float32).reshape(2, 3))
HOSTILE = {
    "empty": b"",
    "not numpy": b"PK\x03\x04" + GOOD,
    "magic alone": GOOD[:6],
    "no header": GOOD[:10],
    "half a header": GOOD[:60],
    "version 2": GOOD[:6] + b"\x02\x00" + GOOD[8:],
    "a call": GOOD.replace(b"(2, 3)", b"f(2,3)"),
    "deep": GOOD.replace(b"{'des", b"((((("),
    "bracket": GOOD.replace(b", }", b", )"),
    "no shape": GOOD.replace(b"'shape'", b"'shapo'"),
    "objects": _bytes(np.array([[None] * 3] * 2)),
    "records": _bytes(np.zeros(2, dtype=[("a", "<f4"), ("b", "<f4")])),
    "one byte less": GOOD[:-1],
    "one byte more": GOOD + b"\0",
    "another dtype": _bytes(np.zeros((2, 3))),
    "another byte order": _bytes(np.zeros((2, 3), dtype=">f4")),
    "another shape": _bytes(np.zeros((2, 4), dtype=np.float32)),
    "another rank": _bytes(np.zeros(6, dtype=np.float32)),
    "negative": GOOD.replace(b"(2, 3)", b"(2,-3)"),
    "beyond memory": GOOD.replace(b"(2, 3), }      ", b"(200000000,3),}"),
    "beyond integers": GOOD.replace(b"(2, 3), }        ", b"(2, 99999999999),"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("mapped", [False, True])
def test_any_other_bytes_are_one_typed_error(tmp_path: Path, data: bytes, mapped: bool) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(ArtifactError, match=r"a\.npy") as caught:
        load_array(file, np.float32, (2, 3), mapped=mapped)

    assert len(str(caught.value)) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(5, dtype=np.uint8),
        np.zeros((0, 4), dtype=np.float32),
        np.zeros((3, 0, 2), dtype=np.float32),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_what_numpy_writes_comes_back(tmp_path: Path, array: Any, mapped: bool) -> None:
    np.save(tmp_path / "a.npy", array)
    found = load_array(tmp_path / "a.npy", array.dtype, array.shape, mapped=mapped)
    np.testing.assert_array_equal(found, array)
    free = (None,) * array.ndim
    assert load_array(tmp_path / "a.npy", array.dtype, free, mapped=mapped).shape == array.shape


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    for name in ("pipe.npy", "zero.npy", "missing.npy", "."):
        with pytest.raises(ArtifactError, match="missing, or not a regular file"):
            load_array(tmp_path / name, np.float32, (None,))
