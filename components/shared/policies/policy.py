"""What does stage 1 answer? The policy document of a Policy artifact and its decisions."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.calibration import registry
from components.shared.calibration.calibrator import Calibrator, class_log_odds
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir
from components.shared.contracts.config import unknown_key
from components.shared.contracts.errors import ArtifactError
from components.shared.stats.metrics import Bools, Floats, sigmoid

POSITIVE, NEGATIVE, DEFER, BOTH = "roadwork", "none", "defer", "both"
RISKS = ("error", "fnr")
INFEASIBLE = "infeasible.json"
DISTILLED_POLICY = "student.json"  # the rule of a student, beside that of its teacher
Logits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Softmax policy: positive iff the margin exceeds `threshold_margin`; it never defers.

    The margin is the log-odds of the positive class, after the calibrator where there is one;
    `threshold` is its probability, for people. Other kinds derive from it. A policy that defers
    still decides for consumers that cannot defer (`decision`): margin against threshold.
    """

    kind: str
    class_names: tuple[str, ...]
    positive_class: str
    threshold: float
    threshold_margin: float
    calibrator: Calibrator | None = None

    @property
    def positive(self) -> int:
        """Index of the positive class."""
        return self.class_names.index(self.positive_class)

    def margin(self, logits: Logits) -> Floats:
        """(N,) float64 calibrated log-odds of the positive class against all others, from logits
        (N, C).
        """
        wide = np.asarray(logits, dtype=np.float64)
        if self.calibrator is not None:
            wide = self.calibrator.log_probabilities(wide)
        return class_log_odds(wide, self.positive)

    def decision(self, logits: Logits) -> Bools:
        """(N,) bool, True for the positive class; also where the policy defers."""
        return np.asarray(self.margin(logits) > self.threshold_margin)

    def confidence(self, logits: Logits, gate: Logits | None = None) -> Floats:
        """(N,) float64, larger is surer: distance of the margin from the threshold. gate: (N,) raw
        gate scores.
        """
        del gate
        return np.abs(self.margin(logits) - self.threshold_margin)

    def answers(self, logits: Logits, gate: Logits | None = None) -> Bools:
        """(N,) bool, False where stage 1 defers to stage 2."""
        del gate
        return np.ones(len(logits), dtype=bool)

    def both(self, logits: Logits) -> Bools:
        """(N,) bool, True where an answer is the set of both classes."""
        return np.zeros(len(logits), dtype=bool)

    def decide(self, logits: Logits, gate: Logits | None = None) -> npt.NDArray[np.str_]:
        """(N,) of "roadwork" (the positive class), "none", "both" or "defer", from logits (N,
        C).
        """
        decided = np.where(self.decision(logits), POSITIVE, NEGATIVE)
        return np.where(
            self.answers(logits, gate), np.where(self.both(logits), BOTH, decided), DEFER
        )

    def to_json(self) -> dict[str, Any]:
        """The document of policy.json."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        calibrator = None if self.calibrator is None else self.calibrator.to_json()
        return {**values, "class_names": list(self.class_names), "calibrator": calibrator}

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """What is wrong with the values of a document that has all fields."""
        names, positive = document["class_names"], document["positive_class"]
        problems = []
        if not _distinct_names(names):
            problems.append(f"class_names={names!r} must be a list of at least two distinct names")
        elif positive not in names:
            problems.append(f"positive_class={positive!r} is not in {names}")
        margin, threshold = document["threshold_margin"], document["threshold"]
        for name in ("threshold_margin", "threshold"):
            if not is_number(document[name]):
                problems.append(f"{name}={document[name]!r} must be a finite number")
        if (
            is_number(margin)
            and is_number(threshold)
            and abs(threshold - _probability(margin)) > 1e-9
        ):
            expected = _probability(margin)
            problems.append(
                f"threshold={threshold!r} is not {expected!r}, the probability of"
                f" threshold_margin={margin!r}"
            )
        return problems


@dataclass(frozen=True, kw_only=True)
class SelectivePolicy(Policy):
    """What policies that defer have in common: the promise they were calibrated for.

    With probability at least 1 - delta the `risk` ("error": error rate, "fnr": false negative rate)
    among answered images is at most `alpha`; with probability at least 1 - delta coverage is at
    least `coverage_lower_bound`.
    """

    risk: str
    alpha: float
    delta: float
    coverage_lower_bound: float

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """The common fields, and every number finite."""
        problems = super().field_problems(document)
        if document["risk"] not in RISKS:
            problems.append(f"risk={document['risk']!r} must be one of {', '.join(RISKS)}")
        for name in ("alpha", "delta"):
            if not is_number(document[name]) or not 0 < document[name] < 1:
                problems.append(f"{name}={document[name]!r} must lie between 0 and 1")
        numbers = [field.name for field in fields(cls) if field.type in ("float", float)]
        problems += [
            f"{n}={document[n]!r} must be a finite number"
            for n in numbers
            if not is_number(document[n])
        ]
        return problems


@dataclass(frozen=True, kw_only=True)
class ScrcPolicy(SelectivePolicy):
    """Answers where the confidence reaches the certified bound of the answer it would give.

    With `single_from`, an answer is a set: the more probable class alone where its probability
    exceeds that, else both. Then an error is a set without the true class.
    """

    answer_positive_from: float
    answer_negative_from: float
    single_from: float | None = None

    def answers(self, logits: Logits, gate: Logits | None = None) -> Bools:
        """(N,) bool, False where stage 1 defers to stage 2."""
        bound = np.where(
            self.decision(logits), self.answer_positive_from, self.answer_negative_from
        )
        return np.asarray(self.confidence(logits, gate) >= bound)

    def both(self, logits: Logits) -> Bools:
        """(N,) bool, True where an answer is the set of both classes."""
        if self.single_from is None:
            return super().both(logits)
        probability = sigmoid(self.margin(logits))
        return np.asarray(np.maximum(probability, 1 - probability) <= self.single_from)

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """`single_from` is the probability of the more probable of two."""
        problems, value = super().field_problems(document), document.get("single_from")
        if value is not None and (not is_number(value) or not 0.5 <= value <= 1):
            problems.append(f"single_from={value!r} must be null or lie in [0.5, 1]")
        return problems


@dataclass(frozen=True, kw_only=True)
class GatePolicy(SelectivePolicy):
    """Answers where the gate's calibrated log-odds of being right, slope * score + intercept, reach
    `answer_from`.
    """

    gate_slope: float
    gate_intercept: float
    answer_from: float

    def confidence(self, logits: Logits, gate: Logits | None = None) -> Floats:
        """(N,) float64 log-odds that the decision is right, from raw gate scores (N,)."""
        del logits
        if gate is None:
            raise ArtifactError(
                "the policy is a gate, but the logits carry no gate scores; use those of train_gate"
            )
        return np.asarray(
            self.gate_slope * np.asarray(gate, dtype=np.float64) + self.gate_intercept
        )

    def answers(self, logits: Logits, gate: Logits | None = None) -> Bools:
        """(N,) bool, False where stage 1 defers to stage 2."""
        return np.asarray(self.confidence(logits, gate) >= self.answer_from)


_CLASSES: dict[str, type[Policy]] = {"softmax": Policy, "gate": GatePolicy, "scrc": ScrcPolicy}
KINDS = tuple(_CLASSES)


@dataclass(frozen=True)
class Infeasible:
    """What stands in the place of a policy whose promise could not be certified, where that is not
    an error.
    """

    kind: str
    reason: str
    best_level: float


def softmax_policy(
    class_names: tuple[str, ...],
    positive_class: str,
    threshold_margin: float,
    calibrator: Calibrator | None = None,
) -> Policy:
    """The policy with this threshold on the calibrated log-odds."""
    return Policy(
        kind="softmax",
        class_names=class_names,
        positive_class=positive_class,
        threshold=_probability(threshold_margin),
        threshold_margin=threshold_margin,
        calibrator=calibrator,
    )


def parse_policy(document: Any, where: str) -> Policy:
    """Validate a policy document. Raises ArtifactError naming every wrong field and its value."""
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: must be a JSON object, is {type(document).__name__}")
    cls = _CLASSES.get(str(document.get("kind")))
    if cls is None:
        raise ArtifactError(
            f"{where}: kind={document.get('kind')!r} must be one of {', '.join(KINDS)}"
        )
    known = [field.name for field in fields(cls)]
    problems = [unknown_key(key, known) for key in document if key not in known]
    problems += [f"{name} is missing" for name in known if name not in (*document, "single_from")]
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


def read_fitted(path: Path) -> tuple[Policy | Infeasible, Manifest]:
    """Verify and read a Policy artifact that may hold infeasible.json in the place of a policy."""
    if not (path / INFEASIBLE).is_file():
        return read_policy(path)
    manifest = verify_dir(path, Kind.POLICY)
    return Infeasible(**json.loads((path / INFEASIBLE).read_text(encoding="utf-8"))), manifest


def read_distilled_policy(path: Path) -> Policy | None:
    """The student's rule in a verified Policy artifact; None where there is no student."""
    file = path / DISTILLED_POLICY
    return (
        parse_policy(json.loads(file.read_text(encoding="utf-8")), str(file))
        if file.is_file()
        else None
    )


def read_policy(path: Path) -> tuple[Policy, Manifest]:
    """Verify and read a Policy artifact, which holds exactly one policy.json."""
    manifest = verify_dir(path, Kind.POLICY)
    if INFEASIBLE in manifest.files:
        stored = json.loads((path / INFEASIBLE).read_text(encoding="utf-8"))
        raise ArtifactError(
            f"{path}: holds no policy, its target was infeasible: {stored['reason']}"
        )
    found = sorted(name for name in manifest.files if name.endswith("policy.json"))
    if found != ["policy.json"]:
        raise ArtifactError(f"{path}: must hold exactly one policy.json, holds {found or 'none'}")
    file = path / "policy.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{file}: not valid JSON ({error})") from error
    return parse_policy(document, str(file)), manifest


def is_number(value: object) -> bool:
    """A finite JSON number (a bool is none)."""
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
