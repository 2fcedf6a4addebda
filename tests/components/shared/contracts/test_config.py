"""Configuration: types, ranges, unknown keys, and what JSON and KFP hand over."""

from dataclasses import dataclass

import pytest

from components.shared.contracts.config import Config, option
from components.shared.contracts.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Example(Config):
    """A little of everything."""

    epochs: int = option(3, "passes", ge=1)
    rate: float = option(0.5, "rate", gt=0, lt=1)
    mode: str = option("a", "mode", choices=("a", "b"))
    flag: bool = option(False, "flag")
    names: tuple[str, ...] = option(("x",), "names")
    mapping: dict[str, str] = option({"0": "None"}, "mapping")


def test_json_values_become_the_declared_types() -> None:
    config = Example.from_mapping(
        {"epochs": 5.0, "rate": 0.25, "names": ["p", "q"], "mapping": {"1": "b"}}
    )
    assert config.epochs == 5
    assert isinstance(config.epochs, int)
    assert config.names == ("p", "q")
    assert Example.from_mapping(config.to_json()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 1}, "unknown key 'epoch', did you mean 'epochs'?"),
        ({"epochs": 0}, "epochs=0 must be >= 1"),
        ({"epochs": 1.5}, "epochs=1.5 must be int, got float"),
        ({"epochs": "3"}, "epochs='3' must be int, got str"),
        ({"epochs": True}, "epochs=True must be int, got bool"),
        ({"rate": 1.0}, "rate=1.0 must be < 1"),
        ({"rate": 0}, "rate=0.0 must be > 0"),
        ({"rate": float("nan")}, "rate=nan must be finite"),
        ({"mode": "c"}, "mode='c' must be one of a, b"),
        ({"flag": "yes"}, "flag='yes' must be bool, got str"),
        ({"names": "x"}, "names='x' must be a list, got str"),
        ({"mapping": ["x"]}, "must be a mapping, got list"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Example.from_mapping(values)
    assert message in str(caught.value)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"epochs=0.*rate=2\.0.*mode='c'"):
        Example(epochs=0, rate=2.0, mode="c")


def test_digest_depends_on_values_alone() -> None:
    assert (
        Example(mapping={"b": "1", "a": "2"}).digest()
        == Example(mapping={"a": "2", "b": "1"}).digest()
    )
    assert Example(epochs=4).digest() != Example(epochs=5).digest()
