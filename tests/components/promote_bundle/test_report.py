"""The page about a decision is rendered from its record, escaped, and loads nothing."""

from typing import Any

import pytest

from components.promote_bundle.report import render

COMPARED: dict[str, Any] = {
    "objective": "mcc",
    "label": "MCC",
    "larger_is_better": True,
    "challenger": 0.81234,
    "champion": 0.7,
    "gain": 0.11234,
    "margin": 0.0,
    "level": 0.01464,
    "p_value": 1e-5,
    "lower_bound": 0.04,
    "passes": True,
    "n_images": 120,
    "n_groups": 60,
}
SLICE: dict[str, Any] = {
    "column": "light",
    "value": "<b>night</b>",
    "n_images": 40,
    "n_groups": 20,
    "objective": "mcc",
    "gain": -0.2,
    "interval": [-0.3, -0.1],
    "reason": "",
    "holds": False,
}
DECISION: dict[str, Any] = {
    "number": 7,
    "kind": "comparison",
    "promoted": True,
    "challenger": "a" * 64,
    "champion": "b" * 64,
    "lineage": "roads",
    "because": "",
    "by": "",
    "run": "nightly-17",
    "git_commit": "c0ffee",
    "code_version": "1234",
    "recorded_at": "2026-01-01T00:00:00+00:00",
    "reason": "the gain <better>",
    "evidence": {
        "comparison": COMPARED,
        "spending": {"number": 3, "budget": 0.05, "level": 0.00386, "remaining": 0.025},
        "guards": [{"name": "slices", "holds": False, "reason": "1 of 2 slices worse"}],
        "slices": [SLICE, SLICE | {"interval": None, "reason": "too few groups", "holds": True}],
        "slice_tolerance": 0.05,
        "left_out_groups": 4,
    },
}


def _document(outcome: str, decision: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "reason": "the gain <better>",
        "challenger": "a" * 64,
        "registry": "s3://bucket/registry",
        "n_comparisons": 3,
        "decision": decision,
    }


def test_a_comparison_has_numbers_guards_slices_and_its_record() -> None:
    page = render(_document("refused", DECISION))
    for shown in (
        "Refused",
        "0.8123",
        "+0.1123",
        "+0.0400",
        "must be above zero",
        "lower bound over groups is above zero; p = 1e-05, level 0.0146",
        "at confidence 0.98536",
        "comparison 3 of the lineage",
        "4 groups were left out, because the champion has seen them",
        "lies below -0.05.",
        "1 of 2 slices worse",
        "-0.3000 to -0.1000",
        "too few groups",
        "nightly-17",
        "c0ffee",
    ):
        assert shown in page, shown
    assert "<p>The gain &lt;better&gt;.</p>" in page
    assert "&lt;b&gt;night&lt;/b&gt;" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page == render(_document("refused", DECISION))


def test_a_refresh_may_lose_a_little() -> None:
    evidence = DECISION["evidence"] | {
        "comparison": COMPARED | {"margin": -0.01},
        "slice_tolerance": 0.0,
        "left_out_groups": 1,
    }
    page = render(_document("promoted", DECISION | {"evidence": evidence}))
    assert "must be above -0.01" in page
    assert "1 group was left out, because the champion has seen it" in page
    assert "lies below zero." in page


def test_a_first_champion_has_its_metric() -> None:
    first = {
        "objective": "mcc",
        "label": "MCC",
        "challenger": 0.5,
        "n_images": 120,
        "n_groups": 60,
    }
    decision = DECISION | {"kind": "first", "champion": None, "evidence": {"first": first}}
    page = render(_document("promoted", decision))
    assert "0.5000" in page
    assert "champion before it" not in page
    assert "<h2>Slices" not in page


@pytest.mark.parametrize("decision", [None, DECISION])
def test_a_bundle_that_is_the_champion_shows_no_comparison(
    decision: dict[str, Any] | None,
) -> None:
    page = render(_document("unchanged", decision))
    assert "Unchanged" in page
    assert "The test" not in page
    assert ("nightly-17" in page) is (decision is not None)
