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
from components.shared.contracts.config import unknown_keys
from components.shared.contracts.documents import is_number
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.outcomes import (
    BINARY,
    DEFER,
    MULTICLASS,
    TASKS,
    Outcomes,
    class_names_problem,
)
from components.shared.stats.metrics import Bools, Floats, Integers, sigmoid, softmax

RISKS = ("error", "fnr")
SET_SEPARATOR = " or "  # between the names of an answer that is a set
_PROBABILITY_TOLERANCE = 1e-9  # of a threshold that is written both as margin and as probability
# Below the log-odds of 1 / K, which the most probable of K classes always reaches.
_ROUNDING = 1e-9
_LARGEST_GROUP = 2**53  # images


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Softmax policy: decides by the model's calibrated probabilities alone.

    Binary: positive if and only if the log-odds of the positive class exceed `threshold_margin`; it
    never defers. Multiclass: the most probable class, where its log-odds reach `threshold_margin`;
    it defers elsewhere, without a guarantee. `threshold` is the same limit as a probability, for
    people. Other kinds derive from this class. A policy that defers still decides for consumers
    that cannot defer (`decision`).
    """

    kind: str
    outcomes: Outcomes
    threshold: float
    threshold_margin: float
    calibrator: Calibrator | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.outcomes.class_names

    def margin(self, logits: LogitArray) -> Floats:
        """Return (N,) float64 calibrated log-odds of the positive class, from logits (N, C).

        Raises:
            DataError: the task is multiclass.
        """
        return class_log_odds(self.calibrated(logits), self.outcomes.positive_index)

    def probabilities(self, logits: LogitArray) -> Floats:
        """Return (N, K) float64 calibrated probabilities of the outcomes, from logits (N, C)."""
        if self.outcomes.positive is None:
            return softmax(self.calibrated(logits))
        margin = self.margin(logits)
        return np.column_stack([sigmoid(-margin), sigmoid(margin)])

    def decision(self, logits: LogitArray) -> Integers:
        """Return (N,) int64, the outcome that is decided for; also where the policy defers."""
        if self.outcomes.positive is None:
            return np.asarray(self.calibrated(logits).argmax(axis=1))
        return np.asarray(self.margin(logits) > self.threshold_margin, dtype=np.int64)

    def confidence(self, logits: LogitArray, gate: LogitArray | None = None) -> Floats:
        """Return (N,) float64, larger is more confident.

        Binary: the distance of the margin from the threshold; multiclass: the log-odds of the most
        probable class against all others. gate: (N,) raw gate scores, for policies that need them.
        """
        del gate
        if self.outcomes.positive is None:
            return top_log_odds(self.calibrated(logits))
        return np.abs(self.margin(logits) - self.threshold_margin)

    def answers(self, logits: LogitArray, gate: LogitArray | None = None) -> Bools:
        """Return (N,) bool, False where stage 1 defers to stage 2."""
        if self.outcomes.positive is None:
            return np.asarray(self.confidence(logits, gate) >= self.threshold_margin)
        return np.ones(len(logits), dtype=bool)

    def answer_sets(self, logits: LogitArray) -> Bools:
        """Return (N, K) bool, the outcomes that an answer names; the decision is one of them."""
        return np.asarray(self.decision(logits)[:, None] == np.arange(len(self.outcomes.names)))

    def decide(self, logits: LogitArray, gate: LogitArray | None = None) -> npt.NDArray[np.str_]:
        """Return (N,) answers: the name of an outcome, of several joined by "or", or "defer"."""
        names = np.array(self.outcomes.names)
        sets = self.answer_sets(logits)
        named = [SET_SEPARATOR.join(names[members]) for members in sets]
        return np.where(self.answers(logits, gate), np.array(named, dtype=np.str_), DEFER)

    def calibrated(self, logits: LogitArray) -> Floats:
        """Return (N, C) float64 logits, after the calibrator where there is one."""
        logits64 = np.asarray(logits, dtype=np.float64)
        return logits64 if self.calibrator is None else self.calibrator.log_probabilities(logits64)

    def to_json(self) -> dict[str, Any]:
        """Return the document of policy.json."""
        values = {name: getattr(self, name) for name in _own_fields(type(self))}
        calibrator = None if self.calibrator is None else self.calibrator.to_json()
        return {
            **values,
            "class_names": list(self.class_names),
            "task": self.outcomes.task,
            "positive_class": self.outcomes.positive_class,
            "calibrator": calibrator,
        }

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with the values of a document that has all fields."""
        problems = _outcome_problems(
            document["class_names"], document["task"], document["positive_class"]
        )

        margin, threshold = document["threshold_margin"], document["threshold"]
        for name in ("threshold_margin", "threshold"):
            if not is_number(document[name]):
                problems.append(f"{name}={shown(document[name])} must be a finite number")

        if is_number(margin) and is_number(threshold):
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
    least `coverage_lower_bound`. Both are about a random image of a random group (place, drive or
    video): a group counts once, however many images it has. Where `max_group_images` is set, the
    risk is that of a random image, if no group has more images than that.
    """

    risk: str
    alpha: float
    delta: float
    coverage_lower_bound: float
    max_group_images: int | None = None

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with the common fields, and with any number that is not finite."""
        problems = super().field_problems(document)
        if document["risk"] not in RISKS:
            problems.append(f"risk={shown(document['risk'])} must be one of {', '.join(RISKS)}")
        elif document["risk"] == "fnr" and document["task"] == MULTICLASS:
            problems.append(f"risk='fnr' needs task={BINARY}")
        limit = document.get("max_group_images")
        if limit is not None and not (type(limit) is int and 1 <= limit <= _LARGEST_GROUP):
            problems.append(f"max_group_images={shown(limit)} must be null or an integer >= 1")
        for name in ("alpha", "delta"):
            if not is_number(document[name]) or not 0 < document[name] < 1:
                problems.append(f"{name}={shown(document[name])} must lie between 0 and 1")

        for field in fields(cls):
            if field.type in ("float", float) and not is_number(document[field.name]):
                problems.append(f"{field.name}={document[field.name]!r} must be a finite number")

        return problems


@dataclass(frozen=True, kw_only=True)
class ScrcPolicy(SelectivePolicy):
    """SCRC policy: answers where the confidence reaches the certified bound of its decision.

    answer_from: one bound for each outcome; None: that outcome is never answered. With
    `single_from`, an answer is a set: the decision, and every outcome with a probability of at
    least 1 - `single_from`. An error is then a set without the true outcome.
    """

    answer_from: tuple[float | None, ...]
    single_from: float | None = None

    def answers(self, logits: LogitArray, gate: LogitArray | None = None) -> Bools:
        """Return (N,) bool, False where stage 1 defers to stage 2."""
        bounds = np.array([np.inf if bound is None else bound for bound in self.answer_from])
        return np.asarray(self.confidence(logits, gate) >= bounds[self.decision(logits)])

    def answer_sets(self, logits: LogitArray) -> Bools:
        """Return (N, K) bool, the outcomes that an answer names; the decision is one of them."""
        sets = super().answer_sets(logits)
        if self.single_from is None:
            return sets
        return np.asarray(sets | (self.probabilities(logits) >= 1 - self.single_from))

    def to_json(self) -> dict[str, Any]:
        """Return the document of policy.json."""
        return {**super().to_json(), "answer_from": list(self.answer_from)}

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with the fields; `single_from` is a probability of at least 0.5."""
        problems, value = super().field_problems(document), document.get("single_from")
        if value is not None and (not is_number(value) or not 0.5 <= value <= 1):
            problems.append(f"single_from={shown(value)} must be null or lie in [0.5, 1]")

        bounds = document["answer_from"]
        if not isinstance(bounds, list) or not all(b is None or is_number(b) for b in bounds):
            problems.append(
                f"answer_from={shown(bounds)} must be a list of finite numbers or nulls"
            )
        elif not problems and len(bounds) != len(_outcomes(document).names):
            problems.append(
                f"answer_from={shown(bounds)} must have one bound for each of"
                f" {shown(list(_outcomes(document).names))}"
            )

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
        outcomes=outcomes,
        threshold=_probability(threshold_margin),
        threshold_margin=threshold_margin,
        calibrator=calibrator,
    )


def argmax_policy(outcomes: Outcomes, calibrator: Calibrator | None = None) -> Policy:
    """Return the softmax policy that always answers with the more probable outcome."""
    n_outcomes = len(outcomes.names)
    always = 0.0 if outcomes.positive is not None else -math.log(n_outcomes - 1) - _ROUNDING
    return softmax_policy(outcomes, always, calibrator)


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

    kind = document.get("kind")
    cls = _CLASSES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ArtifactError(f"{where}: kind={shown(kind)} must be one of {', '.join(KINDS)}")

    document = _current_form(document, cls)
    known = [*_own_fields(cls), *_OUTCOME_FIELDS]
    problems = unknown_keys(document, known)
    problems += [f"{name} is missing" for name in known if name not in document]
    problems = problems or cls.field_problems(document)
    if problems:
        raise ArtifactError(f"{where}: {first_of(problems, separator='; ')}")

    outcomes, stored = _outcomes(document), document["calibrator"]
    n_classes = len(outcomes.class_names)
    calibrator = None if stored is None else registry.parse(stored, f"{where}: calibrator")
    if calibrator is not None and calibrator.n_classes() not in (None, n_classes):
        raise ArtifactError(
            f"{where}: calibrator is for {calibrator.n_classes()} classes, class_names has"
            f" {n_classes}"
        )

    values = {name: document[name] for name in _own_fields(cls)}
    if cls is ScrcPolicy:
        values["answer_from"] = tuple(values["answer_from"])

    return cls(outcomes=outcomes, **{**values, "calibrator": calibrator})


# How a document holds the field `outcomes`.
_OUTCOME_FIELDS = ("class_names", "task", "positive_class")


def _own_fields(cls: type[Policy]) -> list[str]:
    """Return the names of the fields that a document holds as they are."""
    return [field.name for field in fields(cls) if field.name != "outcomes"]


def _current_form(document: dict[str, Any], cls: type[Policy]) -> dict[str, Any]:
    """Return a document in the current form.

    Earlier ones have no task, which was binary, no sets, no limit of a group's size, and a bound
    for each answer of its own.
    """
    current: dict[str, Any] = {"task": BINARY} | document
    if issubclass(cls, SelectivePolicy):
        current = {"max_group_images": None} | current
    if cls is ScrcPolicy:
        current = {"single_from": None} | current
        earlier = ("answer_negative_from", "answer_positive_from")
        if "answer_from" not in current and all(name in current for name in earlier):
            bounds = [current[name] for name in earlier]
            kept = {name: value for name, value in current.items() if name not in earlier}
            return {**kept, "answer_from": bounds}

    return current


def _outcomes(document: dict[str, Any]) -> Outcomes:
    """Return the outcomes of a document without problems."""
    return Outcomes.of(document["class_names"], document["task"], document["positive_class"])


def _outcome_problems(names: object, task: object, positive: object) -> list[str]:
    """Return what is wrong with the fields of the outcomes."""
    problem = class_names_problem(names)
    if problem:
        return [problem]
    assert isinstance(names, list)
    if task not in TASKS:
        return [f"task={shown(task)} must be one of {', '.join(TASKS)}"]
    if task == BINARY and positive not in names:
        return [f"positive_class={shown(positive)} is not in {shown(names)}"]
    if task == MULTICLASS and positive is not None:
        return [f"positive_class={shown(positive)} must be null for task={MULTICLASS}"]
    return []


def top_log_odds(logits: Floats) -> Floats:
    """Return (N,) the log-odds of the largest of logits (N, C) against all others."""
    ordered = np.sort(logits, axis=1)
    return class_log_odds(ordered, ordered.shape[1] - 1)


def _probability(margin: float) -> float:
    return float(sigmoid(np.array(margin, dtype=np.float64)))
