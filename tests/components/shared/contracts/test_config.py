"""Configuration: types, ranges, unknown keys, and what JSON and KFP hand over."""

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from components.shared.contracts.config import Config, adjusted, option
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
    limit: int | None = option(None, "limit", ge=1, unset="none")
    size: int = option(None, "size; auto: twice the epochs", ge=1, unset="auto")

    def automatic(self) -> dict[str, object]:
        """The size is twice the epochs."""
        return {"size": 2 * self.epochs}


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
        ({"rate": 0}, "rate=0 must be > 0"),
        ({"rate": float("nan")}, "rate=nan must be finite"),
        ({"mode": "c"}, "mode='c' must be one of a, b"),
        ({"flag": "yes"}, "flag='yes' must be bool, got str"),
        ({"names": "x"}, "names='x' must be a list, got str"),
        ({"mapping": ["x"]}, "must be a mapping, got list"),
        ({"mapping": {"0": 1}}, "mapping['0']=1 must be str, got int"),
        ({"names": ["x", 1]}, "names[1]=1 must be str, got int"),
        ({"limit": 0}, "limit=0 must be >= 1, or none"),
        ({"limit": "auto"}, "limit='auto' must be int or none, got str"),
        ({"size": "none"}, "size='none' must be int or auto, got str"),
        ({"epochs": None}, "epochs=None must be int, got NoneType"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Example.from_mapping(values)
    assert message in str(caught.value)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"epochs=0.*rate=2\.0.*mode='c'"):
        Example(epochs=0, rate=2.0, mode="c")


@pytest.mark.parametrize("given", [None, "auto"])
def test_an_automatic_value_is_resolved_on_construction(given: object) -> None:
    config = Example.from_mapping({"epochs": 5, "size": given})
    assert config.size == config.to_json()["size"] == 10
    assert config.to_json(resolved=False)["size"] is None
    assert Example(size=10, epochs=5).to_json(resolved=False)["size"] == 10
    assert config == Example(size=10, epochs=5)


@pytest.mark.parametrize("given", [None, "none"])
def test_a_feature_that_is_off_is_none_also_in_json(given: object) -> None:
    config = Example.from_mapping({"limit": given})
    assert config.limit is None
    assert json.loads(json.dumps(config.to_json()))["limit"] is None


def test_a_default_of_none_needs_a_word_since_kfp_has_no_null() -> None:
    with pytest.raises(ValueError, match=r"default None needs unset=.*: Largest group"):
        option(None, "Largest group.", ge=1)


def test_a_subclass_changes_a_default_and_inherits_the_rest() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Longer(Example):
        epochs: int = adjusted(Example, "epochs", default=30)

    assert Longer().epochs == 30
    with pytest.raises(ConfigError, match="epochs=0 must be >= 1"):
        Longer(epochs=0)
    assert Longer.__dataclass_fields__["epochs"].metadata["help"] == "passes"


def test_importing_a_configuration_does_not_load_pydantic() -> None:
    code = "import sys, components.configure.phases; print('pydantic' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"


def test_digest_depends_on_values_alone() -> None:
    assert (
        Example(mapping={"b": "1", "a": "2"}).digest()
        == Example(mapping={"a": "2", "b": "1"}).digest()
    )
    assert Example(epochs=4).digest() != Example(epochs=5).digest()
