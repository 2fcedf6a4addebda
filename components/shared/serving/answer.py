"""The answer of a bundle's policy for one image, whichever form of the model computed it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from components.shared.contracts.outcomes import DEFER
from components.shared.policies.policy import Policy
from components.shared.stats.metrics import Bools, Floats

_N_SHOWN = 5  # classes whose probabilities an answer has


@dataclass(frozen=True)
class Answer:
    """Answer of the policy for one image.

    Attributes:
        decision: name of an outcome, the names of several that the policy cannot tell apart, or
            "defer".
        probability: calibrated, in [0, 1]: of the positive class; of a multiclass task, of the most
            probable class.
        threshold: what the policy compares the probability with; None where it compares something
            else.
        probabilities: of a multiclass task, the most probable classes, at most five, by name.
        views: number of views that were used, of a model of several; of 1, the probabilities are
            the full image's.
    """

    decision: str | list[str]
    probability: float
    threshold: float | None
    probabilities: dict[str, float] | None = None
    views: int | None = None


def answer_of(
    policy: Policy, members: Bools | None, probabilities: Floats, views: int | None
) -> Answer:
    """Return the answer of a policy.

    Args:
        policy: the policy.
        members: (K,) which outcomes it names; None where it defers.
        probabilities: (K,) calibrated, of the outcomes.
        views: number of views that were used; None for a model of one.
    """
    names = policy.outcomes.names
    decision: str | list[str] = DEFER
    if members is not None:
        named = [name for name, is_member in zip(names, members, strict=True) if is_member]
        decision = named[0] if len(named) == 1 else named

    if policy.outcomes.positive is not None:
        return Answer(decision, float(probabilities[1]), policy.threshold, views=views)

    top = np.argsort(-probabilities, kind="stable")[:_N_SHOWN].tolist()
    return Answer(
        decision,
        probability=float(probabilities[top[0]]),
        threshold=policy.threshold if policy.kind == "softmax" else None,
        probabilities={names[k]: float(probabilities[k]) for k in top},
        views=views,
    )


def answer_document(answer: Answer) -> dict[str, Any]:
    """Return an answer as a JSON object: what it has, with six decimals."""
    values = asdict(answer).items()
    return {name: _rounded(value) for name, value in values if value is not None}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return round(value, 6) if isinstance(value, float) else value
