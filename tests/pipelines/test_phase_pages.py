"""Every phase's README.md is what the code generates; an option is written in one place."""

import dataclasses
from pathlib import Path

import pytest

from components.configure import phases, resolve
from components.configure.config import ConfigureConfig
from components.fit_threshold.config import FitThresholdConfig
from components.shared.contracts.config import option
from components.shared.contracts.errors import ConfigError
from pipelines import phase_pages
from pipelines.documents import parameters
from pipelines.sources import ROOT

PAGES = phase_pages.phase_pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_committed_page_is_what_the_code_generates(page: Path) -> None:
    assert page.is_file(), "run `python -m pipelines.documents`"
    assert page.read_text(encoding="utf-8") == PAGES[page], "run `python -m pipelines.documents`"


def test_every_component_has_a_page() -> None:
    components = {file.parent for file in (ROOT / "components").glob("*/component.py")}
    assert {page.parent for page in PAGES} == components


def test_a_page_has_inputs_outputs_parameters_and_failure_modes() -> None:
    page = phase_pages.phase_page("fit_threshold")
    assert "| `val_calib_logits` | `ValCalibLogits` | Logits on VAL_CALIB" in page
    assert "| `policy` | `Policy` |" in page
    assert '| `objective` | text | `"mcc"` | mcc, f1, balanced_accuracy |' in page
    assert "| `ConfigError` | 42 |" in page
    assert "`backbone_fingerprint` is computed from the backbone." in phase_pages.phase_page(
        "import_backbone"
    )
    assert "always for `ema_decay`, `epochs`" in phase_pages.phase_page("pretrain_explora")


def test_a_new_option_is_written_in_its_configuration_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Extended(FitThresholdConfig):
        min_precision: float = option(0.5, "Least precision of the threshold.", ge=0, le=1)

    monkeypatch.setitem(phases.PHASES, "fit_threshold", Extended)

    # The command line's list, and nearest names.
    assert "fit_threshold.min_precision" in resolve.option_names()
    with pytest.raises(ConfigError, match="did you mean 'min_precision'"):
        resolve.resolve(ConfigureConfig(overrides={"min_precison": 0.1}))
    # Recipes, overrides and the configuration that the step gets from `configure`.
    for overrides in ({"min_precision": 0.25}, {"fit_threshold": {"min_precision": 0.25}}):
        found = resolve.resolve(ConfigureConfig(overrides=overrides))["fit_threshold"]
        assert found.to_json()["min_precision"] == 0.25
    with pytest.raises(ConfigError, match="fit_threshold: min_precision=2 must be <= 1"):
        resolve.resolve(ConfigureConfig(overrides={"min_precision": 2}))
    # The site's reference page and the phase's own page.
    row = "| `min_precision` | number | `0.5` | >= 0, \\<= 1 | Least precision of the threshold. |"
    assert row in parameters()
    assert row in phase_pages.phase_page("fit_threshold")
