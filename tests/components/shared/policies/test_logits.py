"""Logits artifacts: round trip, leakage, and malformed content."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import DataError, LeakageViolationError
from components.shared.policies.logits import Logits, read_logits, write_logits


def _logits(split: str = "VAL_CALIB", **changes: Any) -> Logits:
    values: dict[str, Any] = {
        "split": split,
        "class_names": ("None", "Roadwork"),
        "sample_ids": ("a", "b", "c"),
        "labels": np.array([0, 1, 1]),
        "logits": np.array([[1, 0], [0.5, 2], [0, 0]], dtype=np.float32),
        "groups": ("g", "g", "h"),
        "sources": ("s",) * 3,
        "paths": ("1.jpg", "2, with comma.jpg", "3.jpg"),
    }
    return Logits(**(values | changes))


def _write(path: Path, logits: Logits, split: str) -> None:
    with writing(
        path, kind=Kind.logits_of(split), step="test", config=Config(), split=split
    ) as out:
        write_logits(out, logits)


def test_round_trip(tmp_path: Path) -> None:
    original = _logits()
    _write(tmp_path / "x", original, "VAL_CALIB")
    restored, _ = read_logits(tmp_path / "x", "VAL_CALIB")
    for field in dataclasses.fields(Logits):
        assert np.array_equal(getattr(restored, field.name), getattr(original, field.name))
    assert restored.margin.tolist() == [-1, 1.5, 0]


def test_the_other_split_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "x", _logits("VAL_TEST"), "VAL_TEST")
    with pytest.raises(LeakageViolationError):
        read_logits(tmp_path / "x", "VAL_CALIB")


def test_content_of_another_split_under_a_rewritten_manifest_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "x", _logits("VAL_TEST"), "VAL_CALIB")
    with pytest.raises(LeakageViolationError, match="holds split 'VAL_TEST'"):
        read_logits(tmp_path / "x", "VAL_CALIB")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"logits": np.array([[1, np.nan], [0, 0], [0, 0]], dtype=np.float32)},
            r"logits\[0\] of sample a is not fin",
        ),
        (
            {"logits": np.zeros((3, 3), dtype=np.float32)},
            r"logits is float32 \(3, 3\), expected float32 \(3, 2\)",
        ),
        ({"logits": np.zeros((3, 2))}, "logits is float64"),
        ({"sample_ids": ("a", "b", "a")}, r"repeats 1 id\(s\)"),
        ({"labels": np.array([0, 1, 2])}, r"labels contains \[2\], expected 0..1"),
        ({"groups": ("g",)}, "different lengths"),
    ],
)
def test_malformed_content_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _logits(**changes)
