"""`tune`: a recipe that `run` takes, found on this machine."""

import json
from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError
from pipelines.cli.app import run_verb
from pipelines.parameters import Variant, read_parameters


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Parameters of places that exist; nothing reads them."""
    for name in ("data", "backbone"):
        (tmp_path / name).mkdir()
    return [f"--param={name}={tmp_path / name}" for name in ("data", "backbone")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tune", "--param=mode=lora"], "use --search training"),
        (["tune", "--search=training", "--param=mode=frozen"], "use --search head"),
        (["tune", "--param=tune_head.n_trials=0"], "n_trials=0 must be >= 1"),
        (["tune", "--param=tune_head.training={}"], "is that of train_baseline"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    arguments: list[str], says: str, sources: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        run_verb([*arguments, *sources, f"--output={tmp_path / 'runs'}"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_search_on_the_demo_ends_with_a_recipe(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["--demo", "--param=mode=frozen", "--param=epochs=2", "--param=tune_head.n_trials=4"]
    run_verb(["tune", *given, f"--output={tmp_path}", "--json"])
    printed = capfd.readouterr().out
    found = json.loads(printed[printed.rindex("\n{\n") :])
    assert found["monitor"] == "val_select/nll"

    recipe = Path(found["recipe"])
    assert recipe == tmp_path / "best.yaml"
    assert read_parameters(recipe, ["data=d", "backbone=b"], Variant())["overrides"]

    capfd.readouterr()
    run_verb(["tune", *given, f"--output={tmp_path}"])  # from the cache
    assert f"best of 4 trials {found['best']:.4f}" in capfd.readouterr().out
