"""Policies: the document of policy.json, and the decisions of stage 1 that follow from it.

Own checks instead of a pydantic model: every wrong field is named with its value in one line, and
whether the fields agree with each other (threshold with margin, calibrator with classes) is checked
in the same pass.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.calibration import registry
from components.shared.calibration.calibrator import Calibrator, LogitArray, class_log_odds
from components.shared.contracts.config import unknown_key
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.outcomes import BINARY, Outcomes
from components.shared.stats.metrics import Bools, Floats, sigmoid

POSITIVE, NEGATIVE, DEFER, BOTH = "roadwork", "none", "defer", "both"
RISKS = ("error", "fnr")
_PROBABILITY_TOLERANCE = 1e-9  # of a threshold that is written both as margin and as probability


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Softmax policy: positive if and only if the margin exceeds `threshold_margin`; never defers.

    The margin is the log-odds of the positive class, after the calibrator where there is one;
    `threshold` is the same limit as a probability, for people. Other kinds derive from this class.
    A policy that defers still decides for consumers that cannot defer (`decision`).
    """

    kind: str
    class_names: tuple[str, ...]
    positive_class: str
    threshold: float
    threshold_margin: float
    calibrator: Calibrator | None = None

    @property
    def outcomes(self) -> Outcomes:
        """What the classes mean for the answers."""
        return Outcomes.of(self.class_names, BINARY, self.positive_class)

    @property
    def positive(self) -> int:
        """Index of the positive class."""
        return self.class_names.index(self.positive_class)

    def margin(self, logits: LogitArray) -> Floats:
        """Return (N,) float64 calibrated log-odds of the positive class, from logits (N, C)."""
        logits64 = np.asarray(logits, dtype=np.float64)
        if self.calibrator is not None:
            logits64 = self.calibrator.log_probabilities(logits64)
        return class_log_odds(logits64, self.positive)

    def decision(self, logits: LogitArray) -> Bools:
        """Return (N,) bool, True for the positive class; also where the policy defers."""
        return np.asarray(self.margin(logits) > self.threshold_margin)

    def confidence(self, logits: LogitArray, gate: LogitArray | None = None) -> Floats:
        """Return (N,) float64, larger is more confident: distance of the margin from the threshold.

        gate: (N,) raw gate scores, for policies that need them.
        """
        del gate
        return np.abs(self.margin(logits) - self.threshold_margin)

    def answers(self, logits: LogitArray, gate: LogitArray | None = None) -> Bools:
        """Return (N,) bool, False where stage 1 defers to stage 2."""
        del gate
        return np.ones(len(logits), dtype=bool)

    def both(self, logits: LogitArray) -> Bools:
        """Return (N,) bool, True where an answer is the set of both classes."""
        return np.zeros(len(logits), dtype=bool)

    def decide(self, logits: LogitArray, gate: LogitArray | None = None) -> npt.NDArray[np.str_]:
        """Return (N,) of "roadwork" (the positive class), "none", "both" or "defer"."""
        decided = np.where(self.decision(logits), POSITIVE, NEGATIVE)
        answer = np.where(self.both(logits), BOTH, decided)
        return np.where(self.answers(logits, gate), answer, DEFER)

    def to_json(self) -> dict[str, Any]:
        """Return the document of policy.json."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        calibrator = None if self.calibrator is None else self.calibrator.to_json()
        return {**values, "class_names": list(self.class_names), "calibrator": calibrator}

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with the values of a document that has all fields."""
        names, positive = document["class_names"], document["positive_class"]
        problems = []
        if not _distinct_names(names):
            problems.append(f"class_names={names!r} must be a list of at least two distinct names")
        elif positive not in names:
            problems.append(f"positive_class={positive!r} is not in {names}")

        margin, threshold = document["threshold_margin"], document["threshold"]
        for name in ("threshold_margin", "threshold"):
            if not _is_number(document[name]):
                problems.append(f"{name}={document[name]!r} must be a finite number")

        if _is_number(margin) and _is_number(threshold):
            expected = _probability(margin)
            if abs(threshold - expected) > _PROBABILITY_TOLERANCE:
                problems.append(
                    f"threshold={threshold!r} is not {expected!r}, the probability of"
                    f" threshold_margin={margin!r}"
                )

        return problems


@dataclass(frozen=True, kw_only=True)
class SelectivePolicy(Policy):
    """A policy that defers, with the guarantee that it was calibrated for.

    With probability at least 1 - delta the `risk` ("error": error rate, "fnr": false negative rate)
    among answered images is at most `alpha`; with probability at least 1 - delta the coverage is at
    least `coverage_lower_bound`.
    """

    risk: str
    alpha: float
    delta: float
    coverage_lower_bound: float

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with the common fields, and with any number that is not finite."""
        problems = super().field_problems(document)
        if document["risk"] not in RISKS:
            problems.append(f"risk={document['risk']!r} must be one of {', '.join(RISKS)}")
        for name in ("alpha", "delta"):
            if not _is_number(document[name]) or not 0 < document[name] < 1:
                problems.append(f"{name}={document[name]!r} must lie between 0 and 1")

        for field in fields(cls):
            if field.type in ("float", float) and not _is_number(document[field.name]):
                problems.append(f"{field.name}={document[field.name]!r} must be a finite number")

        return problems


@dataclass(frozen=True, kw_only=True)
class ScrcPolicy(SelectivePolicy):
    """SCRC policy: answers where the confidence reaches the certified bound of its decision.

    With `single_from`, an answer is a set: the more probable class alone where its probability
    exceeds `single_from`, else both classes. An error is then a set without the true class.
    """

    answer_positive_from: float
    answer_negative_from: float
    single_from: float | None = None

    def answers(self, logits: LogitArray, gate: LogitArray | None = None) -> Bools:
        """Return (N,) bool, False where stage 1 defers to stage 2."""
        bound = np.where(
            self.decision(logits), self.answer_positive_from, self.answer_negative_from
        )
        return np.asarray(self.confidence(logits, gate) >= bound)

    def both(self, logits: LogitArray) -> Bools:
        """Return (N,) bool, True where an answer is the set of both classes."""
        if self.single_from is None:
            return super().both(logits)
        probability = sigmoid(self.margin(logits))
        return np.asarray(np.maximum(probability, 1 - probability) <= self.single_from)

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with the fields; `single_from` is a probability of at least 0.5."""
        problems, value = super().field_problems(document), document.get("single_from")
        if value is not None and (not _is_number(value) or not 0.5 <= value <= 1):
            problems.append(f"single_from={value!r} must be null or lie in [0.5, 1]")
        return problems


@dataclass(frozen=True, kw_only=True)
class GatePolicy(SelectivePolicy):
    """Gate policy: answers where the gate's log-odds of a correct decision reach `answer_from`.

    The log-odds are gate_slope * score + gate_intercept of the raw gate score.
    """

    gate_slope: float
    gate_intercept: float
    answer_from: float

    def confidence(self, logits: LogitArray, gate: LogitArray | None = None) -> Floats:
        """Return (N,) float64 log-odds that the decision is correct, from raw gate scores (N,).

        Raises:
            ArtifactError: no gate scores are given.
        """
        del logits
        if gate is None:
            raise ArtifactError(
                "the policy is a gate, but the logits carry no gate scores; use those of train_gate"
            )
        return np.asarray(
            self.gate_slope * np.asarray(gate, dtype=np.float64) + self.gate_intercept
        )

    def answers(self, logits: LogitArray, gate: LogitArray | None = None) -> Bools:
        """Return (N,) bool, False where stage 1 defers to stage 2."""
        return np.asarray(self.confidence(logits, gate) >= self.answer_from)


# Kinds of policy; configurations take their choices from the keys.
_CLASSES: dict[str, type[Policy]] = {"softmax": Policy, "gate": GatePolicy, "scrc": ScrcPolicy}
KINDS = tuple(_CLASSES)


@dataclass(frozen=True)
class Infeasible:
    """The result where a policy cannot be fitted or its guarantee not certified: infeasible.json.

    best_level: the smallest alpha that would have been certified, for people who read the document;
    None where it is not a matter of alpha.
    """

    kind: str
    reason: str
    best_level: float | None = None


def softmax_policy(
    outcomes: Outcomes, threshold_margin: float, calibrator: Calibrator | None = None
) -> Policy:
    """Return the softmax policy with this threshold on the calibrated log-odds."""
    return Policy(
        kind="softmax",
        class_names=outcomes.class_names,
        positive_class=outcomes.class_names[outcomes.positive_index],
        threshold=_probability(threshold_margin),
        threshold_margin=threshold_margin,
        calibrator=calibrator,
    )


def parse_policy(document: Any, where: str) -> Policy:
    """Validate a policy document and build the policy.

    Args:
        document: the parsed JSON.
        where: name of the document in error messages.

    Raises:
        ArtifactError: a field is wrong; the message names every such field and its value.
    """
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: must be a JSON object, is {type(document).__name__}")

    cls = _CLASSES.get(str(document.get("kind")))
    if cls is None:
        raise ArtifactError(
            f"{where}: kind={document.get('kind')!r} must be one of {', '.join(KINDS)}"
        )

    known = [field.name for field in fields(cls)]
    optional = ("single_from",)  # absent from documents older than prediction sets
    problems = [unknown_key(key, known) for key in document if key not in known]
    problems += [f"{name} is missing" for name in known if name not in (*document, *optional)]
    problems = problems or cls.field_problems(document)
    if problems:
        raise ArtifactError(f"{where}: " + "; ".join(problems))

    names, stored = tuple(document["class_names"]), document["calibrator"]
    calibrator = None if stored is None else registry.parse(stored, f"{where}: calibrator")
    if calibrator is not None and calibrator.n_classes() not in (None, len(names)):
        raise ArtifactError(
            f"{where}: calibrator is for {calibrator.n_classes()} classes, class_names has"
            f" {len(names)}"
        )

    return cls(**{**document, "class_names": names, "calibrator": calibrator})


def _is_number(value: object) -> bool:
    """Return whether the value is a finite JSON number; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _distinct_names(names: object) -> bool:
    return (
        isinstance(names, list)
        and len(names) >= 2
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names)
    )


def _probability(margin: float) -> float:
    return float(sigmoid(np.array(margin, dtype=np.float64)))
