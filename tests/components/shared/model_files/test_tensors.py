"""Headers and values of safetensors files: read as the library does, or refused."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.model_files.tensors import check_tensors

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _file(folder: Path, *tensors: torch.Tensor) -> Path:
    save_file({f"t{i}": tensor for i, tensor in enumerate(tensors)}, folder / "m.safetensors")
    return folder / "m.safetensors"


def _raw(folder: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder / "m.safetensors"


@pytest.mark.parametrize("name", DTYPES)
def test_floating_point_tensors_pass_with_their_shapes(name: str, tmp_path: Path) -> None:
    largest = torch.finfo(DTYPES[name] if name != "F64" else torch.float32).max
    values = torch.tensor([[0.0, largest, -largest]]).to(DTYPES[name])
    found = check_tensors(_file(tmp_path, values, torch.zeros(0, 2), torch.tensor(1.0)), "m")
    assert {key: tensor.shape for key, tensor in found.items()} == {
        "t0": (1, 3),
        "t1": (0, 2),
        "t2": (),
    }
    assert found["t0"].dtype == name


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_found(name: str, value: float, tmp_path: Path) -> None:
    tensor = torch.zeros(5_000_001, dtype=DTYPES[name])
    tensor[-1] = value
    with pytest.raises(DataError, match=r"^m: 't1' has values that are not finite in float32"):
        check_tensors(_file(tmp_path, torch.ones(3), tensor), "m", error=DataError)


def test_a_double_beyond_float32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not finite in float32"):
        check_tensors(_file(tmp_path, torch.tensor([1e39], dtype=torch.float64)), "m")


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_other_types_are_refused_by_name(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tensor 't0' has the type '.*'; weights must be"):
        check_tensors(_file(tmp_path, torch.zeros(3).to(dtype)), "m")


_ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "holds no tensor"),
        ({"__metadata__": {"format": "pt"}}, "holds no tensor"),
        (b"{" + b" " * 1000 + b"}", "holds no tensor"),
        ([], "no JSON object"),
        (b"\xff{", "not UTF-8"),
        (b"[" * 5000, "nested deeper"),
        ({"a": 5}, "has no dtype, shape and data_offsets"),
        ({"a": {"dtype": "F32"}}, "has no dtype, shape and data_offsets"),
        ({"a": _ONE | {"shape": 5}}, "has no dtype, shape and data_offsets"),
        ({"a": _ONE | {"data_offsets": [0, 4, 8]}}, "has no dtype, shape and data_offsets"),
        ({"a": _ONE | {"shape": [-1, -1]}}, "are no sizes"),
        ({"a": _ONE | {"shape": ["1"]}}, "are no sizes"),
        ({"a": _ONE | {"shape": [2**60]}}, "are no sizes"),
        ({"a": _ONE | {"shape": [2**52, 2**52]}}, "shape and type contradict"),
        ({"a": _ONE | {"dtype": ["F32"]}}, "has the type"),
        ({"a": _ONE | {"dtype": "x" * 10**6}}, "has the type"),
        ({"a": _ONE | {"data_offsets": [4, 8]}}, "overlap or leave gaps"),
        ({"a": _ONE, "b": _ONE}, "overlap or leave gaps"),
        ({"a": _ONE | {"shape": [2], "data_offsets": [0, 8]}}, "bytes, its header needs"),
    ],
)
def test_damaged_headers_are_refused(header: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        check_tensors(_raw(tmp_path, header, b"\0" * 4), "m")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("data", [b"", b"1234567", struct.pack("<Q", 2**62) + b"{}", b"\0" * 100])
def test_what_has_no_header_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match="is not a safetensors file, or was cut off"):
        check_tensors(tmp_path / "m.safetensors", "m")


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, torch.ones(100))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"its header needs .*; copy it again"):
        check_tensors(file, "m")


@given(position=st.integers(0, 200), value=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_any_changed_byte_gives_tensors_or_a_typed_error(
    position: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = _file(tmp_path_factory.mktemp("any"), torch.ones(5), torch.zeros(2, 3))
    data = bytearray(file.read_bytes())
    data[position % len(data)] = value
    file.write_bytes(data)
    with contextlib.suppress(ArtifactError):
        assert check_tensors(file, "m")
