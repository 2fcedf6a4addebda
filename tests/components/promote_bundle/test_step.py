"""The step: what it decides, what it records, and what it leaves."""

import json
from pathlib import Path

import pytest

from components.promote_bundle.config import PromoteConfig
from components.promote_bundle.step import Result, run
from components.shared.contracts.artifacts import verify_dir
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.storage.registry import BundleRegistry
from tests.promotion import Run


def _promote(made: Run, folder: Path, **options: object) -> tuple[Result, dict[str, object]]:
    config = PromoteConfig.from_mapping(options)
    result = run(
        config, **made.paths, promotion=folder / "promotion", report=folder / "report.html"
    )
    verify_dir(folder / "promotion", "Promotion")
    return result, json.loads((folder / "promotion/promotion.json").read_text())


def test_nights_of_a_series(
    registry: BundleRegistry,
    best: Run,
    weak: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first champion, its own night, a better challenger, and a worse one."""
    result, document = _promote(weak, tmp_path / "1")
    assert document["outcome"] == "promoted"
    assert document["decision"]["kind"] == "first"  # type: ignore[index]
    assert result.metrics == {"promoted": 1.0, "comparisons_of_lineage": 0.0}

    result, document = _promote(weak, tmp_path / "2")
    assert document["outcome"] == "unchanged"
    assert result.metrics == {"promoted": 0.0, "comparisons_of_lineage": 0.0}
    assert len(list(registry.decisions())) == 1

    result, document = _promote(best, tmp_path / "3")
    assert document["outcome"] == "promoted"
    assert result.metrics["comparisons_of_lineage"] == 1
    assert result.metrics["gain"] > 0.5
    assert 0 < result.metrics["lower_bound"] < result.metrics["gain"]
    assert registry.champion().digest == best.digest  # type: ignore[union-attr]

    result, document = _promote(weak, tmp_path / "4")
    assert document["outcome"] == "refused"
    assert result.metrics["promoted"] == 0
    assert "is not shown to be above zero" in str(document["reason"])
    assert registry.champion().digest == best.digest  # type: ignore[union-attr]
    assert [decision.promoted for decision in registry.decisions()] == [False, True, True]

    said = capsys.readouterr().out.splitlines()
    assert all("is not signed" in line for line in said if line.startswith("warning"))
    assert [line.partition(":")[0] for line in said if not line.startswith("warning")] == [
        "promoted",
        "unchanged",
        "promoted",
        "refused",
    ]


def test_a_refresh_needs_a_champion(registry: BundleRegistry, weak: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="promotion='not_worse' needs a champion"):
        _promote(weak, tmp_path, promotion="not_worse")
    assert list(registry.decisions()) == []


def test_no_registry_is_set(weak: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.BUNDLE_REGISTRY, raising=False)
    with pytest.raises(ConfigError, match="no registry of bundles is named"):
        _promote(weak, tmp_path)


def test_the_record_names_run_and_commit(
    registry: BundleRegistry, weak: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.RUN, "nightly-17")
    monkeypatch.setenv(Variable.GIT_COMMIT, "c0ffee")
    _promote(weak, tmp_path)
    recorded = registry.decision(1)
    assert (recorded.run, recorded.git_commit) == ("nightly-17", "c0ffee")
    assert recorded.lineage == "roads"
    provenance = registry.provenance(weak.digest)
    assert provenance is not None
    assert provenance.lineage is not None
    assert provenance.lineage.name == "roads"
    assert registry.table(provenance.split_table) == (weak.root / "splits/splits.csv").read_bytes()
