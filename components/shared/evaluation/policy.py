"""What does stage 1 answer? The policy document of a Policy artifact and its decisions."""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.artifacts import Manifest, verify_dir
from components.shared.config import unknown_key
from components.shared.errors import ArtifactError
from components.shared.evaluation.metrics import Bools, Floats, sigmoid

KIND = "Policy"
POSITIVE, NEGATIVE, DEFER = "roadwork", "none", "defer"
Logits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Softmax policy: positive iff the margin (log-odds of the positive class) exceeds `threshold_margin`; no defer.

    Other kinds derive from it, add fields and override `answers` and `field_problems`. `threshold` is the
    probability of the margin, for people. A policy that defers still decides for consumers that cannot defer: margin
    against threshold.
    """

    kind: str
    class_names: tuple[str, ...]
    positive_class: str
    threshold: float
    threshold_margin: float

    def margin(self, logits: Logits) -> Floats:
        """(N,) float64 log-odds of the positive class against all others, from logits (N, C)."""
        wide = np.asarray(logits, dtype=np.float64)
        positive = self.class_names.index(self.positive_class)
        others = np.delete(wide, positive, axis=1)
        return np.asarray(wide[:, positive] - np.logaddexp.reduce(others, axis=1))

    def answers(self, logits: Logits) -> Bools:
        """(N,) bool, False where stage 1 defers to stage 2."""
        return np.ones(len(logits), dtype=bool)

    def decide(self, logits: Logits) -> npt.NDArray[np.str_]:
        """(N,) of "roadwork" (the positive class), "none" or "defer", from logits (N, C)."""
        decided = np.where(self.margin(logits) > self.threshold_margin, POSITIVE, NEGATIVE)
        return np.where(self.answers(logits), decided, DEFER)

    def to_json(self) -> dict[str, Any]:
        """The document of policy.json."""
        return {**asdict(self), "class_names": list(self.class_names)}

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
        if is_number(margin) and is_number(threshold) and abs(threshold - _probability(margin)) > 1e-9:
            expected = _probability(margin)
            problems.append(
                f"threshold={threshold!r} is not {expected!r}, the probability of threshold_margin={margin!r}"
            )
        return problems


_CLASSES: dict[str, type[Policy]] = {"softmax": Policy}


def softmax_policy(class_names: tuple[str, ...], positive_class: str, threshold_margin: float) -> Policy:
    """The policy with this threshold on the log-odds."""
    return Policy(
        kind="softmax",
        class_names=class_names,
        positive_class=positive_class,
        threshold=_probability(threshold_margin),
        threshold_margin=threshold_margin,
    )


def parse_policy(document: Any, where: str) -> Policy:
    """Validate a policy document. Raises ArtifactError naming every wrong field and its value."""
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: must be a JSON object, is {type(document).__name__}")
    cls = _CLASSES.get(str(document.get("kind")))
    if cls is None:
        raise ArtifactError(f"{where}: kind={document.get('kind')!r} must be one of {', '.join(sorted(_CLASSES))}")
    known = [field.name for field in fields(cls)]
    problems = [unknown_key(key, known) for key in document if key not in known]
    problems += [f"{name} is missing" for name in known if name not in document]
    problems = problems or cls.field_problems(document)
    if problems:
        raise ArtifactError(f"{where}: " + "; ".join(problems))
    return cls(**{**document, "class_names": tuple(document["class_names"])})


def read_policy(path: Path) -> tuple[Policy, Manifest]:
    """Verify and read a Policy artifact, which holds exactly one policy.json."""
    manifest = verify_dir(path, KIND)
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
