"""Parts of margins as files."""

from pathlib import Path

import numpy as np
import pytest

from components.shared.contracts.errors import ArtifactError
from components.shared.data.margin_parts import (
    MarginParts,
    cls_share,
    read_margin_parts,
    strength,
    write_margin_parts,
)

LABELS = {"a": 0, "b": 1, "c": 0}
PARTS = {
    "a": MarginParts(1, 0.1 + 0.2, -1.5, 0.3, np.array([[0.5, -0.25]]), (0.0, 0.0, 1.0)),
    "c": MarginParts(2, -7.0, 0.0, 1e-9, np.array([[0.0, 2.0]]), (0.25, 0.5, 0.5)),
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_margin_parts(tmp_path, PARTS)
    found = read_margin_parts(tmp_path, LABELS, 3)
    assert list(found) == ["a", "c"]
    for sample_id, part in PARTS.items():
        read = found[sample_id]
        assert (read.speaks_for, read.margin, read.box) == (part.speaks_for, part.margin, part.box)
        assert (read.cls, read.constant) == (part.cls, part.constant)
        np.testing.assert_array_equal(read.patches, part.patches)


def test_an_artifact_of_a_former_version_has_none(tmp_path: Path) -> None:
    assert read_margin_parts(tmp_path, LABELS, 3) == {}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("a,1,", "a,0,", "speaks_for is no wrong class of a"),
        ("a,1,", "a,3,", "speaks_for is no wrong class of a"),
        ("a,1,", "a,-1,", "speaks_for is no wrong class of a"),
        ("a,1,", "z,1,", "others than samples.csv: z"),
        ("a,1,", "c,1,", "has images twice"),
        ("c,2,-7.0", "c,2,", "c has parts without a number or a place"),
        ("c,2,-7.0", "c,2,nan", "nan"),
        (",0.25,0.5,0.5", ",0.25,0.5,0.0", "c has parts without a number or a place"),
        (",0.25,0.5,0.5", ",1.25,0.5,0.5", "c has parts without a number or a place"),
        ("c,2,", "c,2,1,", "explanations.csv"),
    ],
)
def test_a_table_that_contradicts_the_images_is_refused(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    write_margin_parts(tmp_path, PARTS)
    file = tmp_path / "explanations.csv"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    with pytest.raises(ArtifactError, match=message):
        read_margin_parts(tmp_path, LABELS, 3)


@pytest.mark.parametrize(
    "patches",
    [
        np.zeros((1, 1, 2), dtype=np.float16),
        np.zeros((2, 1, 2), dtype=np.float32),
        np.zeros((2, 0, 0), dtype=np.float16),
        np.full((2, 1, 2), np.nan, dtype=np.float16),
    ],
)
def test_patches_that_do_not_belong_to_the_table_are_refused(
    patches: np.ndarray, tmp_path: Path
) -> None:
    write_margin_parts(tmp_path, PARTS)
    np.save(tmp_path / "explanations.npy", patches)
    with pytest.raises(ArtifactError, match=r"explanations\.(npy|csv)"):
        read_margin_parts(tmp_path, LABELS, 3)


def test_the_same_evidence_speaks_against_the_other_class() -> None:
    part = PARTS["a"]
    other = part.negated()
    assert (other.margin, other.cls, other.constant) == (-part.margin, -part.cls, -part.constant)
    np.testing.assert_array_equal(other.patches, -part.patches)
    assert other.cls_share == part.cls_share == 1.5 / 1.75


@pytest.mark.parametrize(
    ("cls", "patches", "share"), [(3, 1, 0.75), (-1, 1, 0.5), (0, -2, 0), (2, 0, 1), (0, 0, 0)]
)
def test_the_share_of_the_cls_token(cls: float, patches: float, share: float) -> None:
    assert cls_share(cls, patches) == share


def test_patches_for_and_against_have_a_weight_where_their_sum_has_none() -> None:
    patches = np.array([[1.0, -1.0], [0.5, -0.5]])
    assert strength(1.0, patches) == 0.75
    assert cls_share(1.0, float(patches.sum())) == 1
    assert strength(0.0, np.zeros((1, 1))) == 0
