"""The drift reference: what is written is read, and nothing else is accepted."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError, LeakageViolationError
from components.shared.data.drift_reference import (
    DriftReference,
    as_half,
    open_reference,
    read_reference,
    write_reference,
)


def reference(n_images: int = 20, width: int = 6, seed: int = 0) -> DriftReference:
    """A reference of normally distributed features."""
    rng = np.random.default_rng(seed)
    return DriftReference(
        class_names=("None", "Roadwork"),
        features=as_half(rng.normal(size=(n_images, width)).astype(np.float32)),
        logits=rng.normal(size=(n_images, 2)).astype(np.float32),
        labels=rng.integers(0, 2, n_images),
        support=as_half(rng.normal(size=(2 * n_images, width)).astype(np.float32)),
        probe=as_half(rng.normal(size=width).astype(np.float32)),
        n_groups=n_images + 3,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    given = reference()
    with writing(
        tmp_path / "artifact",
        kind=Kind.VAL_CALIB_REFERENCE,
        step="test",
        config=Config(),
        split="VAL_CALIB",
    ) as out:
        write_reference(out, given)
    found, manifest = open_reference(tmp_path / "artifact")
    assert manifest.kind == "ValCalibReference"
    for name, value in dataclasses.asdict(given).items():
        np.testing.assert_array_equal(getattr(found, name), value)
        if isinstance(value, np.ndarray):
            assert getattr(found, name).dtype == value.dtype


def test_what_float16_cannot_hold_becomes_its_largest_value() -> None:
    assert as_half(np.array([1e9, -1e9, 0.1], dtype=np.float32)).tolist() == [
        65504.0,
        -65504.0,
        float(np.float16(0.1)),
    ]


def test_a_reference_of_another_split_is_refused(tmp_path: Path) -> None:
    write_reference(tmp_path / "files", reference())
    header = tmp_path / "files/reference.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"split": "VAL_TEST"}))
    with pytest.raises(LeakageViolationError, match="holds split 'VAL_TEST', a drift reference is"):
        read_reference(tmp_path / "files")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": np.full(20, 2)}, r"labels are not all in 0\.\.1"),
        ({"n_groups": 19}, "n_groups=19 is below 20 images"),
        ({"logits": np.full((20, 2), np.nan, dtype=np.float32)}, "logits.npy is not finite"),
        ({"support": np.zeros((0, 6), dtype=np.float16)}, "the reference is empty"),
        ({"support": np.zeros((5, 7), dtype=np.float16)}, r"support.npy: is '<f2' \(5, 7\)"),
        ({"probe": np.zeros(5, dtype=np.float16)}, r"probe.npy: is '<f2' \(5,\)"),
        ({"logits": np.zeros((20, 3), dtype=np.float32)}, r"logits.npy: is '<f4' \(20, 3\)"),
        ({"class_names": ("a", "a")}, "class_names"),
    ],
)
def test_contradicting_files_are_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    write_reference(tmp_path / "files", dataclasses.replace(reference(), **changes))
    with pytest.raises(ArtifactError, match=says):
        read_reference(tmp_path / "files")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_reference(tmp_path / "files", reference())
    (tmp_path / "files/support.npy").unlink()
    with pytest.raises(ArtifactError, match=r"support\.npy: missing"):
        read_reference(tmp_path / "files")
