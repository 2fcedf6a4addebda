"""The early exit in the report: what it saves is what exits, what it changes is counted."""

import dataclasses

import numpy as np
import pytest

from components.evaluate.report.early_exit_report import measure_early_exit
from components.evaluate.report.report import render
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.early_exit import EarlyExit, fit_early_exit, logits_of_margin
from components.shared.policies.logits import Logits, Views
from components.shared.policies.policy import softmax_policy
from tests.components.evaluate.report.examples import report_data

COUNT = 10
SOFTMAX = softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 0.5)


def _margins(count: int) -> np.ndarray:
    """(N, 10) margins of views: in a tenth of the images a tile finds more than the full image."""
    rng = np.random.default_rng(6)
    full = rng.normal(-2, 2, count)
    tiles = full[:, None] - rng.exponential(2, (count, COUNT - 1))
    finds = rng.random(count) < 0.1
    tiles[finds, 0] += rng.exponential(4, int(finds.sum()))
    return np.column_stack([full, tiles])


def _logits(margins: np.ndarray) -> Logits:
    ids = tuple(f"{i:016x}" for i in range(len(margins)))
    return Logits(
        split="VAL_TEST",
        class_names=("None", "Roadwork"),
        sample_ids=ids,
        labels=np.arange(len(margins)) % 2,
        logits=logits_of_margin(margins.max(axis=1), 1).astype(np.float32),
        groups=ids,
        sources=ids,
        paths=ids,
        full_image_margin=margins[:, 0].astype(np.float32),
        views=Views(COUNT, 0.0),
    )


@pytest.fixture(scope="module")
def early_exit() -> EarlyExit:
    found = fit_early_exit(SOFTMAX, _logits(_margins(2000)[:1000]), max_changed=0.02, seed=0)
    assert found is not None
    return found


def test_the_report_tells_views_saved_and_decisions_unchanged(early_exit: EarlyExit) -> None:
    margins = _margins(2000)[1000:]
    result = measure_early_exit("softmax", _logits(margins), SOFTMAX, early_exit, 200, 0)
    exits = early_exit.exits(margins[:, 0])
    unchanged, bounds = result.unchanged["value"], result.unchanged["interval_95"]
    assert result.saved["value"] == pytest.approx(0.9 * exits.mean())
    assert result.views_per_image == pytest.approx(10 - 9 * exits.mean())
    assert unchanged is not None
    assert 0.96 < unchanged < 1
    assert bounds is not None
    assert bounds[0] < unchanged < bounds[1]

    html = render(dataclasses.replace(report_data(), early_exits=[result]))
    assert f"<b>{result.views_per_image:.2f}</b> of 10" in html
    assert "≥ 0.980 <small>with probability at least 0.9</small>" in html
    assert "Early exit" not in render(report_data())


def test_the_document_keeps_the_keys_of_schema_1(early_exit: EarlyExit) -> None:
    result = measure_early_exit("softmax", _logits(_margins(100)), SOFTMAX, early_exit, 100, 0)
    document = result.to_json()
    assert (document["promised"], document["delta"]) == (0.98, 0.1)
    assert document["equal"] == result.unchanged_per_image["value"]
    assert document["equal_per_group"] == result.unchanged["value"]
    assert document["saved_interval_95"] == result.saved["interval_95"]


def test_what_is_certified_is_observed_per_group(early_exit: EarlyExit) -> None:
    """The images of one large group exit with a changed decision; no other group has a change."""
    full, count = np.r_[np.full(60, -9.0), np.full(140, 9.0)], 200
    margins = np.column_stack([full, np.where(full < 0, 9.0, -9.0)[:, None].repeat(9, axis=1)])
    groups = ("large",) * 60 + tuple(f"g{row}" for row in range(60, count))
    logits = dataclasses.replace(_logits(margins), groups=groups)
    exits_all = dataclasses.replace(early_exit, certain_from=5.0, negative_to=-5.0)
    result = measure_early_exit("softmax", logits, SOFTMAX, exits_all, 100, 0)
    assert result.unchanged_per_image["value"] == pytest.approx(140 / 200)
    assert result.unchanged["value"] == pytest.approx(140 / 141)
    html = render(dataclasses.replace(report_data(), early_exits=[result]))
    assert "Certified is the decision on <b>a random image of a random group</b>." in html


def test_logits_of_one_view_are_refused(early_exit: EarlyExit) -> None:
    single = dataclasses.replace(_logits(_margins(20)), full_image_margin=None, views=None)
    with pytest.raises(ArtifactError, match="was fitted for several views"):
        measure_early_exit("softmax", single, SOFTMAX, early_exit, 100, 0)
