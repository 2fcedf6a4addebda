"""The decision: what is counted, what is recorded, and against which champion."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.promote_bundle.challenger import Challenger
from components.promote_bundle.config import PromoteConfig
from components.promote_bundle.promote import Author, Outcome, promote
from components.promote_bundle.served import served_predictions
from components.promote_bundle.spending import level
from components.shared.contracts.errors import ConfigError, PermanentError, TransientError
from components.shared.contracts.tables import parse_table
from components.shared.storage.registry import BundleRegistry, Draft, Provenance, SplitLineage
from tests.bundles import resigned
from tests.promotion import FRACTIONS, Run

MODULE = "components.promote_bundle.promote"
CONFIG = PromoteConfig(n_bootstrap=200)
RUN = Author(run="night")


def _decide(
    registry: BundleRegistry, challenger: Challenger, config: PromoteConfig = CONFIG
) -> Outcome:
    return promote(config, challenger, registry, RUN)


def _crown(
    registry: BundleRegistry, run: Run, lineage: str | None = "roads", table: bytes = b""
) -> None:
    """Make a bundle the champion by hand, with what is known of where it comes from."""
    provenance = Provenance(
        lineage=(lineage and SplitLineage(name=lineage, salt="s", fractions=FRACTIONS)) or None,
        split_table=registry.put_table(table) if table else "",
    )
    registry.put_bundle(run.root / "bundle", provenance)
    draft = Draft(kind="by_hand", promoted=True, challenger=run.digest, reason="test")
    registry.decide(draft, registry.champion())


def _table(challenger: Challenger, change: Callable[[int, dict[str, str]], str]) -> bytes:
    """The challenger's table with other splits, of each row by its number."""
    rows = list(parse_table(io.BytesIO(challenger.table), "table", ("sample_id", "split", "group")))
    lines = [f"{row['sample_id']},{change(i, row)},{row['group']}" for i, row in enumerate(rows)]
    return "\n".join(["sample_id,split,group", *lines, ""]).encode()


def test_the_first_champion_is_recorded_with_its_own_guards(
    registry: BundleRegistry, weak: Run
) -> None:
    outcome = _decide(registry, weak.challenger())
    assert outcome.promoted
    decision = outcome.decision
    assert decision is not None
    assert (decision.kind, decision.comparison, decision.champion) == ("first", None, None)
    assert decision.reason == "the first champion"
    assert decision.evidence["first"]["n_groups"] == 60
    assert [guard["name"] for guard in decision.evidence["guards"]] == ["certified risk"]
    assert registry.comparisons("roads") == []


def test_a_first_bundle_that_is_too_slow_is_refused_and_recorded(
    registry: BundleRegistry, weak: Run
) -> None:
    hurried = PromoteConfig(latency_budget_ms=1e-6)
    outcome = _decide(registry, weak.challenger(), hurried)
    assert not outcome.promoted
    assert registry.champion() is None
    recorded = registry.decision(1)
    assert "no champion yet, and a guard refuses; guard latency: " in recorded.reason
    assert not registry.holds(weak.digest)


def test_a_comparison_is_counted_once_however_often_it_is_asked(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    _crown(registry, best)
    challenger = weak.challenger()
    first, again = _decide(registry, challenger), _decide(registry, challenger)
    assert (first.n_comparisons, again.n_comparisons) == (1, 1)
    assert first.decision == again.decision

    # Another margin is another question, and is tested at the next level.
    other = _decide(registry, challenger, replace(CONFIG, min_gain=0.01))
    assert other.n_comparisons == 2
    assert other.decision is not None
    spending = other.decision.evidence["spending"]
    assert (spending["number"], spending["level"]) == (2, pytest.approx(level(2, 0.05)))


def test_the_evidence_has_both_models_the_test_and_the_guards(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    _crown(registry, weak)
    outcome = _decide(registry, best.challenger())
    assert outcome.promoted
    assert outcome.decision is not None
    evidence = outcome.decision.evidence
    assert evidence["challenger"]["digest"] == best.digest
    assert evidence["champion"]["digest"] == weak.digest
    compared = evidence["comparison"]
    assert compared["challenger"] == pytest.approx(0.9, abs=0.06)
    assert abs(compared["champion"]) < 0.4
    assert (compared["n_images"], compared["n_groups"]) == (120, 60)
    assert compared["lower_bound"] > 0
    names = [guard["name"] for guard in evidence["guards"]]
    assert names == ["slices", "certified risk", "calibration", "forms"]
    assert {(found["column"], found["value"]) for found in evidence["slices"]} >= {
        ("light", "day"),
        ("light", "night"),
    }
    assert outcome.decision.lineage == "roads"
    assert outcome.decision.comparison == 1


def test_a_failed_guard_refuses_a_better_bundle(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    _crown(registry, weak)
    outcome = _decide(registry, best.challenger(), replace(CONFIG, latency_budget_ms=1e-6))
    assert not outcome.promoted
    assert outcome.decision is not None
    assert outcome.decision.evidence["comparison"]["passes"]
    assert "; guard latency: " in outcome.decision.reason
    assert not registry.holds(best.digest)
    assert registry.champion().digest == weak.digest  # type: ignore[union-attr]


def test_a_better_bundle_without_a_form_of_the_champion_is_refused(
    registry: BundleRegistry, best: Run, weak: Run, tmp_path: Path
) -> None:
    """Servers that follow the champion serve one form, and none of this bundle."""
    quantised = _copy(weak, tmp_path / "quantised", "onnx_int8/model.onnx")
    _crown(registry, quantised)
    challenger = best.challenger()
    reason = "certified is no risk of at most 0.05"
    bundle = replace(challenger.bundle, refused_formats={"onnx_int8": reason})
    outcome = _decide(registry, replace(challenger, bundle=bundle))
    assert not outcome.promoted
    assert outcome.decision is not None
    assert outcome.decision.evidence["comparison"]["passes"]
    assert outcome.decision.reason.endswith(
        f"; guard forms: the champion has onnx_int8, the challenger has not: {reason}"
    )
    assert registry.champion().digest == quantised.digest  # type: ignore[union-attr]

    # The other way round nothing is lost.
    more = _copy(best, tmp_path / "more", "onnx_int8/model.onnx").challenger()
    assert _decide(registry, more).promoted


def test_a_bundle_alone_is_scored_as_its_saved_logits_are(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    _crown(registry, weak)
    outcome = _decide(registry, best.challenger(with_logits=False))
    assert outcome.decision is not None
    assert outcome.promoted
    saved = float(best.challenger().predictions.error.mean())  # type: ignore[union-attr]
    assert saved == pytest.approx(6 / 126, abs=0.03)
    assert outcome.decision.evidence["comparison"]["challenger"] > 0.8


@pytest.mark.parametrize("lineage", [None, "elsewhere"])
def test_a_champion_of_which_nothing_is_known_is_not_compared(
    registry: BundleRegistry, best: Run, weak: Run, lineage: str | None
) -> None:
    _crown(registry, weak, lineage)
    expected = "^not compared: .*; recorded as decision 2$"
    with pytest.raises(PermanentError, match=expected) as caught:
        _decide(registry, best.challenger())
    assert caught.value.exit_code == 42
    assert ("'elsewhere'" in str(caught.value)) is (lineage is not None)
    assert registry.comparisons("roads") == []
    assert registry.decision(2).promoted is False
    assert registry.champion().digest == weak.digest  # type: ignore[union-attr]


def test_a_foreign_champion_is_compared_on_the_groups_that_neither_has_seen(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    challenger = best.challenger()
    # It was trained on one image of every third group.
    table = _table(challenger, lambda i, row: "TRAIN" if i % 6 == 0 else row["split"])
    _crown(registry, weak, "elsewhere", table)
    outcome = _decide(registry, challenger)
    assert outcome.promoted
    evidence = outcome.decision.evidence  # type: ignore[union-attr]
    assert evidence["left_out_groups"] == 20
    assert evidence["comparison"]["n_groups"] == 40
    assert evidence["comparison"]["n_images"] == 80


def test_too_few_unseen_groups_are_no_comparison(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    challenger = best.challenger()
    _crown(
        registry,
        weak,
        "elsewhere",
        _table(challenger, lambda i, _: "VAL_CALIB" if i < 100 else "VAL_TEST"),
    )
    expected = "10 groups of VAL_TEST can be compared, a test needs 16"
    with pytest.raises(PermanentError, match=expected):
        _decide(registry, challenger)
    assert registry.comparisons("roads") == []


def test_another_promotion_meanwhile_is_another_champion(
    registry: BundleRegistry, best: Run, weak: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The race is lost after the images were scored: the decision is made anew."""
    _crown(registry, weak)
    other = _copy(best, tmp_path / "other", "README.md")
    calls: list[object] = []

    def overtaken(*arguments: Any) -> Any:
        if not calls:
            _crown(registry, other)
        calls.append(arguments)
        return served_predictions(*arguments)

    monkeypatch.setattr(f"{MODULE}.served_predictions", overtaken)
    outcome = _decide(registry, best.challenger())
    # Against its twin, the best one gains nothing.
    assert not outcome.promoted
    assert outcome.decision.champion == other.digest  # type: ignore[union-attr]
    assert outcome.n_comparisons == 2
    assert registry.champion().digest == other.digest  # type: ignore[union-attr]
    taken = [digest for digest, _ in registry.champions()]
    assert taken == [other.digest, weak.digest]


def test_a_champion_that_changes_all_the_time_is_tried_again_later(
    registry: BundleRegistry, best: Run, weak: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _crown(registry, weak)

    def conflict(*_: Any) -> None:
        from components.shared.storage.errors import StoreConflictError

        raise StoreConflictError("another writer was first")

    monkeypatch.setattr(registry, "decide", conflict)
    monkeypatch.setattr(f"{MODULE}._N_TRIES", 2)
    with pytest.raises(TransientError, match="the champion changed 2 times meanwhile"):
        _decide(registry, best.challenger())


def test_a_run_that_was_killed_before_the_pointer_moved_goes_on(
    registry: BundleRegistry, best: Run, weak: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _crown(registry, weak)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            _decide(registry, best.challenger())
    assert registry.champion().digest == weak.digest  # type: ignore[union-attr]

    outcome = _decide(registry, best.challenger())
    assert outcome.promoted
    assert registry.champion().digest == best.digest  # type: ignore[union-attr]
    assert outcome.n_comparisons == 1
    assert len([found for found in registry.decisions() if found.kind == "comparison"]) == 1


def test_an_address_that_cannot_be_told_is_refused_before_anything_is_counted(
    registry: BundleRegistry, best: Run, weak: Run
) -> None:
    _crown(registry, weak)
    with pytest.raises(ConfigError, match="on_promotion"):
        _decide(registry, best.challenger(), replace(CONFIG, on_promotion="ftp://nowhere"))
    assert registry.comparisons("roads") == []


def _copy(run: Run, root: Path, file: str) -> Run:
    """The same run, with another file in its bundle, and so under another digest."""

    def change(bundle: Path) -> None:
        (bundle / file).parent.mkdir(exist_ok=True)
        (bundle / file).write_text("x")

    shutil.copytree(run.root, root, ignore=shutil.ignore_patterns("bundle"))
    resigned(run.root / "bundle", root / "bundle", change)
    return Run(root)
