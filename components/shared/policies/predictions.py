"""Predictions of one policy on VAL_TEST, the common ground of metrics, tables and comparisons."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from components.shared.calibration.calibrator import LogitArray
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import Policy
from components.shared.stats import calibration_error
from components.shared.stats.metrics import Bools, Floats, Integers


@dataclass(frozen=True)
class Predictions:
    """Output of one policy for N samples and K outcomes.

    Attributes:
        outcomes: of the task: the rest and the positive class, or all classes.
        truth: (N,) int64, number of the true outcome.
        decision: (N,) int64, number of the outcome that the policy decides for, also where it
            defers.
        probabilities: (N, K) float64, calibrated.
        margin: (N,) float64 log-odds of the positive class; None for a multiclass task.
        confidence: (N,) float64 score of the decision; larger means more certain.
        groups: N group names; intervals are over whole groups.
        answered: (N,) False where the policy defers; all True for a policy that never defers.
        answer_sets: (N, K) True for the outcomes that an answer names; several count as correct
            where the true one is among them.
    """

    outcomes: Outcomes
    truth: Integers
    decision: Integers
    probabilities: Floats
    margin: Floats | None
    confidence: Floats
    groups: tuple[str, ...]
    answered: Bools
    answer_sets: Bools

    @classmethod
    def of(
        cls,
        policy: Policy,
        truth: Integers,
        groups: tuple[str, ...],
        logits: LogitArray,
        gate: LogitArray | None = None,
    ) -> Self:
        """Return what a policy decides.

        Args:
            policy: the policy.
            truth: (N,) int64, number of the true outcome.
            groups: N group names.
            logits: (N, C), before the policy's calibrator.
            gate: (N,) raw gate scores, for a policy that needs them.
        """
        is_binary = policy.outcomes.positive is not None
        return cls(
            outcomes=policy.outcomes,
            truth=truth,
            decision=policy.decision(logits),
            probabilities=policy.probabilities(logits),
            margin=policy.margin(logits) if is_binary else None,
            confidence=policy.confidence(logits, gate),
            groups=groups,
            answered=policy.answers(logits, gate),
            answer_sets=policy.answer_sets(logits),
        )

    def take(self, rows: Integers) -> "Predictions":
        """Return the predictions for the samples at `rows` (n,)."""
        return Predictions(
            outcomes=self.outcomes,
            truth=self.truth[rows],
            decision=self.decision[rows],
            probabilities=self.probabilities[rows],
            margin=None if self.margin is None else self.margin[rows],
            confidence=self.confidence[rows],
            groups=tuple(self.groups[row] for row in rows.tolist()),
            answered=self.answered[rows],
            answer_sets=self.answer_sets[rows],
        )

    @property
    def n_outcomes(self) -> int:
        """Number of outcomes, K."""
        return len(self.outcomes.names)

    @property
    def n_groups(self) -> int:
        """Number of distinct groups."""
        return len(set(self.groups))

    @property
    def counts(self) -> dict[str, int]:
        """Number of samples by name of the true outcome."""
        counted = np.bincount(self.truth, minlength=self.n_outcomes).tolist()
        return dict(zip(self.outcomes.names, counted, strict=True))

    @cached_property
    def error(self) -> Bools:
        """(N,) True where the decision is wrong."""
        return np.asarray(self.truth != self.decision)

    @cached_property
    def covered(self) -> Bools:
        """(N,) True where the answer names the true outcome."""
        return np.asarray(self.answer_sets[np.arange(len(self.truth)), self.truth])

    @cached_property
    def set_size(self) -> Floats:
        """(N,) float64 number of outcomes that the answer names."""
        return np.asarray(self.answer_sets.sum(axis=1), dtype=np.float64)

    # --- Binary tasks only.

    @property
    def is_positive(self) -> Bools:
        """(N,) True where the true outcome is the positive class."""
        return np.asarray(self.truth == 1)

    @property
    def says_positive(self) -> Bools:
        """(N,) True where the policy decides for the positive class."""
        return np.asarray(self.decision == 1)

    @cached_property
    def log_odds(self) -> Floats:
        """(N,) float64 log-odds of the positive class."""
        assert self.margin is not None, "a multiclass task has no positive class"
        return self.margin

    @property
    def probability(self) -> Floats:
        """(N,) float64 P(positive)."""
        return np.asarray(self.probabilities[:, 1])

    # --- What calibration is measured on.

    @property
    def forecast(self) -> tuple[Bools | Integers, Floats]:
        """Truth and probabilities in the form of `calibration_error`.

        (N,) bool with (N,) P(positive) of a binary task, else (N,) int64 with (N, K).
        """
        if self.margin is None:
            return self.truth, self.probabilities
        return self.is_positive, self.probability

    @cached_property
    def top_label(self) -> tuple[Bools, Floats]:
        """(N,) whether the most probable outcome is the true one, and (N,) its probability."""
        return calibration_error.top_label(*self.forecast)

    @cached_property
    def log_loss(self) -> Floats:
        """(N,) float64 negative log-likelihood of the true outcome, in nats."""
        if self.margin is not None:
            signed = np.where(self.is_positive, -self.margin, self.margin)
            return np.asarray(np.logaddexp(0.0, signed))
        of_truth = self.probabilities[np.arange(len(self.truth)), self.truth]
        return np.asarray(-np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)))

    @cached_property
    def squared_error(self) -> Floats:
        """(N,) float64 squared error of P(positive), or the sum of it over all classes."""
        if self.margin is not None:
            return np.asarray((self.probability - self.is_positive) ** 2)
        distance = self.probabilities - np.eye(self.n_outcomes)[self.truth]
        return np.asarray((distance**2).sum(axis=1))


def question(outcomes: Outcomes) -> str:
    """Return what the task decides, in words."""
    names = outcomes.class_names
    if outcomes.positive is None:
        return f"which of {len(names)} classes"
    if len(names) == 2:
        return f"{outcomes.positive_class} or {outcomes.names[0]}"
    return f"{outcomes.positive_class} against the rest of {len(names)} classes"
