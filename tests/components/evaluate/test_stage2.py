"""A table of stage 2 is read as a user writes it, and refused with all that is wrong."""

from pathlib import Path

import numpy as np
import pytest

from components.evaluate.stage2 import UNKNOWN, read_stage2
from components.shared.contracts.errors import DataError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import argmax_policy
from components.shared.storage import Store, StoreSettings

CLASSES = ("None", "Roadwork", "Flooding")
IDS = ("a", "b", "c", "d")
TABLE = "note,sample_id,Roadwork,None,Flooding\nsure,c,2.5,0,-1\n,a,0,1,0.5\n,b,0.1,-2,0.2\n"


def _write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "stage2.csv"
    file.write_text(text)
    return str(file)


def test_columns_are_found_by_the_names_of_the_classes(tmp_path: Path) -> None:
    found = read_stage2(_write(tmp_path, TABLE), CLASSES, IDS)
    assert found.file == "stage2.csv"
    assert found.rows == {"c": 0, "a": 1, "b": 2}
    np.testing.assert_array_equal(found.logits, [[0, 2.5, -1], [1, 0, 0.5], [-2, 0.1, 0.2]])
    classes = argmax_policy(Outcomes.of(CLASSES))
    assert found.decisions(classes, IDS).tolist() == [0, 2, 1, UNKNOWN]
    # Roadwork against the rest: at b the other two are together more probable.
    roadwork = argmax_policy(Outcomes.of(CLASSES, "binary", "Roadwork"))
    assert found.decisions(roadwork, IDS).tolist() == [0, 0, 1, UNKNOWN]


def test_it_is_read_from_a_store_too(
    s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    Store(s3).put(bucket, "tables/two.csv", Path(_write(tmp_path, TABLE)))
    found = read_stage2(f"s3://{bucket}/tables/two.csv", CLASSES, IDS)
    assert (found.file, len(found.rows)) == ("two.csv", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample_id,None,Roadwork\na,0,1\n", "no column Flooding"),
        ("sample_id,None,Roadwork,Flooding\n", "it has no rows"),
        ("sample_id,None,Roadwork,Flooding\na,0,1,high\n", "'high' is not a number"),
        ("sample_id,None,Roadwork,Flooding\na,0,1,nan\n", "'nan' is not a number"),
        (
            "sample_id,None,Roadwork,Flooding\na,0,1,\na,0,1,2\nx,0,1,2\n",
            "a value is empty of a; 1 ids stand twice: a; 1 of 3 ids are none of VAL_TEST: x",
        ),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"stage2_logits='.*stage2.csv': .*{message}") as caught:
        read_stage2(_write(tmp_path, text), CLASSES, IDS)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"stage2_logits='none.csv' does not exist"):
        read_stage2("none.csv", CLASSES, IDS)
