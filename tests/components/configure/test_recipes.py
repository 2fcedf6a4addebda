"""Every shipped recipe is valid, commented and grouped by phase."""

from pathlib import Path

import pytest
import yaml

from components.configure import recipes, resolve
from components.configure.config import ConfigureConfig
from components.configure.phases import OPTIONAL, PHASES
from components.shared.contracts.errors import ConfigError

FOLDER = Path(recipes.__file__).parent


def test_the_recipes_are_those_of_the_folder() -> None:
    assert recipes.NAMES == (
        "default",
        "demo",
        "dinov3-large-lora",
        "multi-view",
        "natix-dinov2-small",
        "selective",
    )


@pytest.mark.parametrize("name", recipes.NAMES)
def test_every_recipe_resolves_for_the_default_pipeline(name: str) -> None:
    assert resolve.resolve(ConfigureConfig(recipe=name)).keys() == PHASES.keys()


@pytest.mark.parametrize("name", recipes.NAMES)
def test_a_recipe_begins_with_a_comment_and_has_neither_data_nor_resources(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    given = recipes.read_recipe(name)
    assert not {"data", "backbone", "n_processes", "resources"} & given.keys()
    sections = {phase: values for phase, values in given.items() if phase in PHASES}
    for values in sections.values():
        assert not {"data", "backbone", "n_processes"} & values.keys()
    assert not OPTIONAL.keys() & sections.keys()


@pytest.mark.parametrize("name", recipes.NAMES)
def test_a_recipe_has_the_structure_of_overrides(name: str) -> None:
    given = recipes.read_recipe(name)
    assert resolve.resolve(ConfigureConfig(overrides=given)) == resolve.resolve(
        ConfigureConfig(recipe=name)
    )


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("pretrain_explora: {epochs: 3}", "--pretrain unlabelled"),
        ("compare_adaptations: {n_bootstrap: 500}", "--modes full,lora"),
        ("explora_rank: 8", "--pretrain unlabelled"),
    ],
)
def test_options_of_a_task_that_is_not_compiled_in_are_refused_with_the_flag(
    monkeypatch: pytest.MonkeyPatch, text: str, flag: str
) -> None:
    monkeypatch.setattr(resolve, "read_recipe", lambda name: yaml.safe_load(text))
    with pytest.raises(ConfigError, match=f"recipe 'default': .* is compiled in by {flag}"):
        resolve.resolve(ConfigureConfig())


def test_a_recipe_sets_those_of_a_task_that_is_compiled_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolve, "read_recipe", lambda name: {"pretrain_explora": {"epochs": 3}})
    phases = resolve.resolve(ConfigureConfig(pretrain="unlabelled"))
    assert phases["pretrain_explora"].epochs == 3  # type: ignore[attr-defined]
    assert phases["train_baseline"].epochs == 20  # type: ignore[attr-defined]
