"""What is recorded of samples reaches the evaluation, under the names that a user gives it."""

from pathlib import Path

import numpy as np
import pytest

from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError
from components.shared.data.attributes import (
    recorded_columns,
    resolved_names,
    sliceable_columns,
)
from components.shared.data.dataset import Dataset, Sample, write_samples
from components.shared.data.val_test_images import ValTestImages, write_val_test_images
from tests.bundles import write_dataset
from tests.golden.make import FOLDER

SAMPLES = [
    Sample("00", 0, "g0", "roads", "a.jpg", "00", {"weather": "rain", "source": "x"}, 10.5, 2.25),
    Sample("01", 1, "g1", "city", "b.jpg", "01", {"source": "y"}),
]


def test_columns_are_texts_as_in_the_table() -> None:
    assert recorded_columns(SAMPLES) == {
        "source": ["roads", "city"],
        "brightness": ["10.5", ""],
        "sharpness": ["2.25", ""],
        "attribute:source": ["x", "y"],
        "attribute:weather": ["rain", ""],
    }


def test_a_user_s_column_has_its_own_name_unless_it_is_taken() -> None:
    found = sliceable_columns(recorded_columns(SAMPLES), "samples.csv")
    assert list(found) == ["source", "brightness", "sharpness", "attribute:source", "weather"]
    np.testing.assert_array_equal(found["brightness"], [10.5, np.nan])
    assert found["weather"] == ["rain", ""]
    names = ["attribute:weather", "attribute:source", "source", "other"]
    assert resolved_names(names, found) == ["weather", "attribute:source", "source", "other"]


def test_what_was_not_measured_is_no_column() -> None:
    assert list(sliceable_columns({"brightness": ["", ""], "source": ["a", "b"]}, "x")) == [
        "source"
    ]
    with pytest.raises(ArtifactError, match=r"samples.csv: 'dark' is not a number"):
        sliceable_columns({"brightness": ["dark"]}, "samples.csv")


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_samples(tmp_path, SAMPLES)
    header, first, second = (tmp_path / "samples.csv").read_text().splitlines()
    assert header.startswith("sample_id,label,group,source,path,sha256,brightness,sharpness,")
    assert first == "00,0,g0,roads,a.jpg,00,10.5,2.25,x,rain"
    assert second == "01,1,g1,city,b.jpg,01,,,y,"


def test_the_columns_of_a_data_set_reach_the_images_of_val_test(tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", ("None", "Roadwork"), size=16)
    data = Dataset.open(tmp_path / "dataset")
    ids = [sample.sample_id for sample in data.samples[3:9]]
    with writing(
        tmp_path / "images",
        kind="ValTestImages",
        step="predict_logits",
        config=Config(),
        inputs={"dataset": data.manifest},
        split="VAL_TEST",
    ) as out:
        write_val_test_images(out, data, ids, np.zeros((6, 2), dtype=np.float32))
    images = ValTestImages.open(tmp_path / "images")
    assert images.recorded == recorded_columns(data.samples[3:9])


def test_artifacts_of_former_versions_have_no_such_columns() -> None:
    images = ValTestImages.open(FOLDER / "val_test_images")
    assert images.recorded == {}
