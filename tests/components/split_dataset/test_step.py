"""Splits of the tiny data: held-out values, and what is missing where no split is possible."""

from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError, DataError
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split_dataset
from tests.components.conftest import TinyRun


def test_held_out_values_form_val_test(tiny: TinyRun, tmp_path: Path) -> None:
    config = SplitConfig(
        holdout_column="group", holdout_values=("place1", "place2", "place7"), min_per_class=1
    )
    split_dataset(config, dataset=tiny.dataset, splits=tmp_path / "splits")
    data, splits = Dataset.open(tiny.dataset), read_splits(tmp_path / "splits")
    held = {data.samples[data.index[i]].attributes.get("group") for i in splits.ids("VAL_TEST")}
    assert held == {"place1", "place2", "place7"}


def test_an_impossible_split_says_what_is_missing(tiny: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"min_per_class=50 cannot be met: TRAIN has \d+ of class None; .*VAL_SELECT has",
    ):
        split_dataset(
            SplitConfig(min_per_class=50), dataset=tiny.dataset, splits=tmp_path / "splits"
        )
    with pytest.raises(
        ConfigError, match="holdout_column='dya' is not in the data; did you mean 'day'"
    ):
        split_dataset(
            SplitConfig(holdout_column="dya", holdout_values=("x",)),
            dataset=tiny.dataset,
            splits=tmp_path / "splits",
        )
