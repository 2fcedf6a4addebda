"""Predictions of two policies on the same images, made from margins."""

from collections.abc import Sequence

import numpy as np

from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import Policy, ScrcPolicy, SelectivePolicy, softmax_policy
from components.shared.policies.predictions import Predictions
from components.shared.stats.metrics import Bools, Floats

OUTCOMES = Outcomes.of(("None", "Roadwork"), "binary", "Roadwork")
SOFTMAX = softmax_policy(OUTCOMES, 0.0)


def scrc(
    *, alpha: float = 0.1, delta: float = 0.1, risk: str = "error", answer_from: float = 1.0
) -> SelectivePolicy:
    """A policy that answers from this distance of the margin on."""
    return ScrcPolicy(
        kind="scrc",
        outcomes=OUTCOMES,
        threshold=0.5,
        threshold_margin=0.0,
        risk=risk,
        alpha=alpha,
        delta=delta,
        coverage_lower_bound=0.3,
        answer_from=(answer_from, answer_from),
    )


def predictions(
    truth: Bools, margin: Floats, policy: Policy = SOFTMAX, groups: Sequence[str] | None = None
) -> Predictions:
    """What a policy decides on logits (0, margin); one image a group unless given."""
    names = tuple(groups) if groups is not None else tuple(f"g{i}" for i in range(len(truth)))
    logits = np.column_stack([np.zeros(len(truth)), margin])
    return Predictions.of(policy, truth.astype(np.int64), names, logits)


def model(truth: Bools, error_rate: float, seed: int, policy: Policy = SOFTMAX) -> Predictions:
    """A model that is wrong on so many images, with margins of its own confidence."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(truth)) < error_rate
    confidence = np.where(wrong, rng.exponential(1, len(truth)), 1 + rng.exponential(2, len(truth)))
    return predictions(truth, np.where(truth ^ wrong, confidence, -confidence), policy)
