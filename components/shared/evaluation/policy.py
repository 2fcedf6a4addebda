"""What does stage 1 answer? The policy document of a Policy artifact and its decisions."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.artifacts import Manifest, verify_dir
from components.shared.config import unknown_key
from components.shared.errors import ArtifactError
from components.shared.evaluation.metrics import sigmoid

KIND = "Policy"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Softmax policy: positive iff the margin (log-odds of the positive class) exceeds `threshold_margin`."""

    kind: str
    class_names: tuple[str, ...]
    positive_class: str
    threshold: float
    threshold_margin: float

    def margin(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """(N,) float64 log-odds of the positive class against all others, from logits (N, C)."""
        wide = np.asarray(logits, dtype=np.float64)
        positive = self.class_names.index(self.positive_class)
        others = np.delete(wide, positive, axis=1)
        return np.asarray(wide[:, positive] - np.logaddexp.reduce(others, axis=1))

    def decide(self, logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.str_]:
        """(N,) of "roadwork" (the positive class) or "none"."""
        return np.where(self.margin(logits) > self.threshold_margin, "roadwork", "none")

    def to_json(self) -> dict[str, Any]:
        """The document of policy.json."""
        return {**asdict(self), "class_names": list(self.class_names)}


def softmax_policy(class_names: tuple[str, ...], positive_class: str, threshold_margin: float) -> Policy:
    """The policy with this threshold on the log-odds."""
    return Policy(
        kind="softmax",
        class_names=class_names,
        positive_class=positive_class,
        threshold=float(sigmoid(np.array([threshold_margin]))[0]),
        threshold_margin=threshold_margin,
    )


def parse_policy(document: Any, where: str) -> Policy:
    """Validate a policy document. Raises ArtifactError naming the field and the value."""
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: must be a JSON object, is {type(document).__name__}")
    known = list(Policy.__dataclass_fields__)
    problems = [unknown_key(key, known) for key in document if key not in known]
    problems += [f"{name} is missing" for name in known if name not in document]
    if problems:
        raise ArtifactError(f"{where}: " + "; ".join(problems))
    if document["kind"] != "softmax":
        problems.append(f"kind={document['kind']!r} must be 'softmax'")
    if document["positive_class"] not in document["class_names"]:
        problems.append(f"positive_class={document['positive_class']!r} is not in {document['class_names']}")
    margin, threshold = document["threshold_margin"], document["threshold"]
    if not isinstance(margin, int | float) or not math.isfinite(margin):
        problems.append(f"threshold_margin={margin!r} must be a finite number")
    elif not isinstance(threshold, float) or abs(threshold - float(sigmoid(np.array([margin]))[0])) > 1e-9:
        problems.append(f"threshold={threshold!r} is not the probability of threshold_margin={margin!r}")
    if problems:
        raise ArtifactError(f"{where}: " + "; ".join(problems))
    return Policy(**{**document, "class_names": tuple(document["class_names"])})


def read_policy(path: Path) -> tuple[Policy, Manifest]:
    """Verify and read a Policy artifact, which holds exactly one policy.json."""
    manifest = verify_dir(path, KIND)
    found = sorted(name for name in manifest.files if name.endswith("policy.json"))
    if found != ["policy.json"]:
        raise ArtifactError(f"{path}: must hold exactly one policy.json, holds {found or 'none'}")
    return parse_policy(json.loads((path / "policy.json").read_text(encoding="utf-8")), f"{path}/policy.json"), manifest
