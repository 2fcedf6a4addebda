"""Batches in which conformal risk training acts: counted, foretold exactly, and refused if rare."""

import re

import numpy as np
import pytest
import torch

from components.shared.contracts.errors import ConfigError
from components.shared.contracts.options import RecipeConfig
from components.shared.training.loop import conformal_batches
from components.shared.training.loop.selective_losses import conformal_risk, conformal_threshold


@pytest.mark.parametrize("alpha", [0.5, 0.3, 0.25, 0.1, 0.05, 0.9])
def test_the_least_number_of_positives_is_that_of_the_threshold(alpha: float) -> None:
    needed = conformal_batches.least_positives(alpha)
    assert conformal_threshold(torch.rand(needed), alpha) is not None
    assert needed == 1 or 1 / (needed - 1 + 1) > alpha
    if needed > 1:
        assert conformal_threshold(torch.rand(needed - 1), alpha) is None


def test_a_batch_can_act_where_its_risk_exists_and_only_the_needed_scores_decide() -> None:
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(200):
        positive = rng.random(21) < rng.random()
        scores = torch.from_numpy(rng.random(21))
        risk = conformal_risk(scores, torch.from_numpy(positive), 0.25)
        assert (risk is not None) == conformal_batches.can_act(positive, 0.25)
        verdicts.add(risk is not None)
        if risk is not None:
            needed = conformal_batches.needed_slots(positive)
            others = torch.from_numpy(rng.random(21))
            others[needed] = scores[needed]
            assert conformal_risk(others, torch.from_numpy(positive), 0.25) == risk
    assert verdicts == {True, False}


@pytest.mark.parametrize(
    ("n_positive", "n_negative", "size", "alpha"),
    [(30, 70, 24, 0.2), (9, 91, 64, 0.25), (60, 4, 40, 0.1), (40, 3, 43, 0.1), (5, 200, 64, 0.1)],
)
def test_the_probability_is_that_of_random_batches(
    n_positive: int, n_negative: int, size: int, alpha: float
) -> None:
    """Counted over 20,000 batches, whose standard deviation is at most .0035."""
    labels = np.arange(n_positive + n_negative) < n_positive
    rng, n_draws = np.random.default_rng(0), 20_000
    acts = [
        conformal_batches.can_act(rng.permutation(labels)[:size], alpha) for _ in range(n_draws)
    ]
    found = conformal_batches.probability(n_positive, n_negative, size, alpha)
    assert found == pytest.approx(np.mean(acts), abs=0.014)


def test_the_fraction_of_an_epoch_is_that_of_its_batches() -> None:
    labels = np.arange(300) < 100
    config = RecipeConfig(conformal_weight=1.0, conformal_alpha=0.1, global_batch_size=60)
    fractions = [conformal_batches.active_fraction(labels, config, epoch) for epoch in range(200)]
    assert set(fractions) <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert np.mean(fractions) == pytest.approx(
        conformal_batches.probability(100, 200, 60, 0.1), abs=0.03
    )


def test_a_setting_that_cannot_act_is_refused_with_numbers_and_what_suffices() -> None:
    config = RecipeConfig(conformal_weight=1.0)
    with pytest.raises(ConfigError) as caught:
        conformal_batches.check_counts(config, 70, 730)
    message = str(caught.value)
    assert "conformal_weight=1 would act in 0.1% of the steps" in message
    assert "needs 9 positives in half of a global batch of 64, where 2.8 are expected" in message

    size = int(re.findall(r"global_batch_size of at least (\d+)", message)[0])
    alpha = float(re.findall(r"conformal_alpha of at least ([.\d]+)", message)[0])
    for changes, enough in (
        ({"global_batch_size": size}, True),
        ({"global_batch_size": size - 2}, False),
        ({"conformal_alpha": alpha}, True),
        ({"conformal_alpha": alpha - 0.001}, False),
    ):
        changed = RecipeConfig.from_mapping(config.to_json() | changes)
        if enough:
            conformal_batches.check_counts(changed, 70, 730)
        else:
            with pytest.raises(ConfigError, match="would act in"):
                conformal_batches.check_counts(changed, 70, 730)


def test_without_any_remedy_more_images_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="use more positive images, or conformal_weight=0"):
        conformal_batches.check_counts(RecipeConfig(conformal_weight=1.0), 0, 200)
