"""What `configure` hands to the steps: the options that differ from their defaults."""

from pathlib import Path
from typing import Any

import pytest

from components.configure.config import ConfigureConfig
from components.configure.phases import PHASES
from components.configure.recipes import NAMES
from components.configure.step import configured, handed_over, run
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.serving.signature import TrustedKeys
from tests.model_folder import write_model_folder
from tests.signing import key_pair

_MODES = ("full", "frozen")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Data and a backbone of one file each."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("x", encoding="utf-8")
    write_model_folder(tmp_path / "backbone")
    return {"data": str(tmp_path / "data"), "backbone": str(tmp_path / "backbone")}


@pytest.mark.parametrize("recipe", NAMES)
@pytest.mark.parametrize("changed", [{}, {"mode": "lora", "learning_rate": "0.001"}])
def test_a_step_reads_what_was_configured_from_what_it_is_handed(
    places: dict[str, str], recipe: str, changed: dict[str, Any]
) -> None:
    form = ConfigureConfig(**places, recipe=recipe, **changed)
    configs = configured(form)._asdict()
    handed = handed_over(configs)._asdict()
    for phase, config_class in PHASES.items():
        whole, short = configs[phase], handed[phase]
        assert config_class.from_mapping(short) == config_class.from_mapping(whole)
        assert short.items() <= whole.items()
    assert len(str(handed)) < len(str(configs)) / 2


def test_each_compared_training_resolves_its_own_mode(places: dict[str, str]) -> None:
    configs = configured(ConfigureConfig(**places, modes=_MODES))._asdict()
    whole, short = (found["train_baseline"] for found in (configs, handed_over(configs)._asdict()))
    for mode in _MODES:
        read = PHASES["train_baseline"].from_mapping
        assert read({**short, "mode": mode}) == read({**whole, "mode": mode})


def test_a_graph_of_several_views_that_resizes_is_refused(places: dict[str, str]) -> None:
    overrides = {"export_bundle.onnx_resize": True, "train_baseline.tile_grid": 2}
    form = ConfigureConfig(**places, overrides=overrides)
    with pytest.raises(ConfigError, match="export_bundle: onnx_resize=True with tiles"):
        configured(form)


def test_the_export_is_configured_with_the_keys_that_are_trusted(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other keys are another configuration, and so another cache key: nothing old is taken."""
    assert "trusted_keys" not in run(ConfigureConfig(**places)).export_bundle
    found = set()
    for name in ("old", "new"):
        private, public = key_pair(tmp_path, name)
        monkeypatch.setenv(Variable.SIGNING_KEY, str(private))
        monkeypatch.setenv(Variable.TRUSTED_KEYS, str(public))
        handed = run(ConfigureConfig(**places)).export_bundle["trusted_keys"]
        assert handed == TrustedKeys.read(public).digest
        found.add(handed)
    assert len(found) == 2

    monkeypatch.delenv(Variable.TRUSTED_KEYS)
    with pytest.raises(ConfigError, match="STREETVISION_TRUSTED_KEYS is not: name the file"):
        run(ConfigureConfig(**places))
