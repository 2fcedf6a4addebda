"""The search space is what the options declare, as far as it has an effect."""

import dataclasses
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from components.shared.contracts.config import Range
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.search.space import space_of, with_values

OF_HEADS = {
    "learning_rate",
    "global_batch_size",
    "weight_decay",
    "ema_decay",
    "dropout",
    "label_smoothing",
    "class_weights",
}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, OF_HEADS),
        ({"tile_grid": 2}, OF_HEADS | {"aggregation"}),
        ({"mode": "full"}, OF_HEADS | {"augmentation"}),
        ({"mode": "lora"}, OF_HEADS | {"augmentation", "adapter_rank"}),
        ({"ema_decay": None, "weight_decay": 0.0}, OF_HEADS - {"ema_decay", "weight_decay"}),
    ],
)
def test_options_without_effect_are_not_searched(options: dict[str, Any], names: set[str]) -> None:
    assert set(space_of(ClassifierConfig.from_mapping(options))) == names


def test_ranges_contain_the_value_of_the_run() -> None:
    space = space_of(ClassifierConfig(mode="full", dropout=0.9, global_batch_size=8))
    assert space["dropout"] == FloatDistribution(0.0, 0.9)
    assert space["global_batch_size"] == IntDistribution(8, 256, log=True)
    assert space["class_weights"] == CategoricalDistribution(("none", "balanced"))
    rate = space["learning_rate"]
    assert isinstance(rate, FloatDistribution)
    assert (rate.low, rate.high) == pytest.approx((2e-5 / 30, 6e-4))
    assert space_of(ClassifierConfig(learning_rate=0.5))["learning_rate"].high == 0.99  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["frozen", "full", "lora"])
def test_every_end_of_every_range_is_a_valid_option(mode: str) -> None:
    base = ClassifierConfig(mode=mode)
    for name, values in space_of(base).items():
        ends = (
            values.choices
            if isinstance(values, CategoricalDistribution)
            else (values.low, values.high)  # type: ignore[attr-defined]
        )
        for end in ends:
            assert getattr(with_values(base, {name: end}), name) == end


def test_what_is_automatic_follows_from_the_values() -> None:
    base = ClassifierConfig(mode="full", optimizer="profit")
    found = with_values(base, {"learning_rate": 1e-4})
    assert found.profit_reference_rate == pytest.approx(1e-6)


def test_ranges_are_declared_beside_the_options() -> None:
    searched = {
        field.name: field.metadata["search"]
        for field in dataclasses.fields(ClassifierConfig)
        if field.metadata["search"]
    }
    assert set(searched) == OF_HEADS | {"aggregation", "augmentation", "adapter_rank"}
    assert searched["adapter_rank"] == Range(4, 64, log=True)
