"""Early exit is never wrong where it is certain, rarely elsewhere, and unused on few images."""

import numpy as np
import pytest

from components.shared.calibration.linear import Temperature
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.calibration_split import one_per_group
from components.shared.policies.early_exit import (
    EarlyExit,
    decision_edges,
    decisions_of_margin,
    fit_early_exit,
    logits_of_margin,
)
from components.shared.policies.logits import Logits, Views
from components.shared.policies.policy import Policy, ScrcPolicy, softmax_policy

NAMES = ("None", "Roadwork")
COUNT = 10
SOFTMAX = softmax_policy(Outcomes.of(NAMES, "binary", "Roadwork"), 0.5)


def _margins(count: int, seed: int) -> np.ndarray:
    """Return (N, 10) margins of views: in a tenth of the images a tile finds more."""
    rng = np.random.default_rng(seed)
    whole = rng.normal(-2, 2, count)
    tiles = whole[:, None] - rng.exponential(2, (count, COUNT - 1))
    finds = rng.random(count) < 0.1
    tiles[finds, 0] += rng.exponential(4, int(finds.sum()))
    return np.column_stack([whole, tiles])


def _logits(
    margins: np.ndarray, bound: float | None = 0.0, groups: list[str] | None = None
) -> Logits:
    count = len(margins)
    ids = tuple(f"{i:016x}" for i in range(count))
    return Logits(
        split="VAL_CALIB",
        class_names=NAMES,
        sample_ids=ids,
        labels=np.arange(count) % 2,
        logits=logits_of_margin(margins.max(axis=1), 1).astype(np.float32),
        groups=tuple(groups) if groups else ids,
        sources=("",) * count,
        paths=ids,
        full_image_margin=margins[:, 0].astype(np.float32),
        views=Views(COUNT, bound),
    )


def _fitted(logits: Logits, policy: Policy = SOFTMAX, max_changed: float = 0.02) -> EarlyExit:
    found = fit_early_exit(policy, logits, max_changed=max_changed, seed=0)
    assert found is not None
    return found


def test_a_margin_that_only_grows_makes_positives_certain() -> None:
    margins = _margins(5000, 1)
    exit_ = _fitted(_logits(margins), max_changed=0.0)
    assert (exit_.negative_to, exit_.n_changed, exit_.changed_upper_bound) == (None, 0, 0)
    assert exit_.certain_from == pytest.approx(0.5, abs=0.011)
    exits = exit_.exits(margins[:, 0])
    assert 0 < exits.mean() < 0.3
    assert (decisions_of_margin(SOFTMAX, margins[exits, 0]) == "Roadwork").all()
    assert (margins[exits].max(axis=1) > 0.5).all()


def test_a_bounded_loss_moves_what_is_certain_and_no_bound_leaves_nothing() -> None:
    margins = _margins(50, 2)
    assert _fitted(_logits(margins, -2.3)).certain_from == pytest.approx(2.8, abs=0.011)
    few = _fitted(_logits(margins, None))
    assert (few.certain_from, few.positive_from, few.negative_to) == (None, None, None)
    assert not few.exits(margins[:, 0]).any()


def test_the_share_of_changed_decisions_keeps_its_bound_in_nine_of_ten_draws() -> None:
    population, violations, saved = _margins(200_000, 3), 0, []
    truth = SOFTMAX.decide(logits_of_margin(population.max(axis=1), 1))
    alone = decisions_of_margin(SOFTMAX, population[:, 0])
    for seed in range(200):
        rows = np.random.default_rng(seed).integers(0, len(population), 600)
        exits = _fitted(_logits(population[rows])).exits(population[:, 0])
        violations += (exits & (alone != truth)).mean() > 0.02
        saved.append(exits.mean())
    assert violations <= 30  # 20 expected at most; 31 and more have a probability of 0.7 % then
    assert np.mean(saved) > 0.3


def test_a_policy_that_defers_exits_only_beyond_its_band() -> None:
    scrc = ScrcPolicy(
        kind="scrc",
        outcomes=Outcomes.of(NAMES),
        threshold=0.5,
        threshold_margin=0.0,
        calibrator=Temperature(2.0),
        risk="error",
        alpha=0.1,
        delta=0.1,
        coverage_lower_bound=0.5,
        answer_from=(0.5, 1.0),
    )
    assert decision_edges(scrc) == pytest.approx((-1.0, 2.0), abs=0.011)
    exits = _fitted(_logits(_margins(5000, 4)), scrc).exits(np.array([-0.9, 0.0, 1.9, 2.1]))
    assert exits.tolist() == [False, False, False, True]


def test_images_of_one_place_count_once() -> None:
    groups = [f"g{i // 3}" for i in range(300)]
    rows = one_per_group(groups, 0)
    assert len(rows) == 100
    assert len({groups[row] for row in rows}) == 100
    assert _fitted(_logits(_margins(300, 5), groups=groups)).n_images == 100
