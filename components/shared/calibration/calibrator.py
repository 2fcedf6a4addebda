"""What is a calibrator? A map from logits to honest probabilities, fitted once, stored as JSON.

Each kind derives from `Calibrator`; `registry` lists them. All work on logits (N, C) and serve two
and more classes.
"""

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import DataError
from components.shared.stats.metrics import Floats, Integers

Logits = npt.NDArray[np.floating[Any]]
# Log-odds further out say the same to any reader, and stay clear of log(0): scikit-learn's log_loss
# clips there too.
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Calibrator(ABC):
    """A fitted calibrator. Fields are numbers or nested tuples of numbers, what the JSON document
    holds.
    """

    NAME: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, logits: Logits, labels: Integers) -> Self:
        """Fit on logits (N, C) and labels (N,) int64; see `checked` for what is refused."""

    @abstractmethod
    def log_probabilities(self, logits: Logits) -> Floats:
        """(N, C) float64, finite, each row the logarithms of probabilities."""

    @abstractmethod
    def n_classes(self) -> int | None:
        """The number of classes it was fitted for; None where it serves any number."""

    def transform(self, logits: Logits) -> Floats:
        """(N, C) float64 calibrated probabilities."""
        return np.asarray(np.exp(self.log_probabilities(logits)))

    def affine(self, n_classes: int) -> tuple[Floats, Floats] | None:
        """(scale (C,), offset (C,)) such that softmax(scale * logits + offset) is the result; None
        where there is none.

        What has this form can be folded into the weights of a linear head.
        """
        del n_classes
        return None

    def to_json(self) -> dict[str, Any]:
        """The JSON document: name and fields, tuples as lists."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"name": self.NAME, **document}

    @classmethod
    def problems(cls, document: dict[str, Any]) -> list[str]:
        """What is wrong with a document's fields, each with its value."""
        known = [field.name for field in fields(cls)]
        found = [f"unknown key {key!r}" for key in document if key not in (*known, "name")]
        found += [f"{name} is missing" for name in known if name not in document]
        found += [
            f"{name}={document[name]!r} must hold finite numbers"
            for name in known
            if name in document and not _all_finite(document[name])
        ]
        return found


def checked(logits: Logits, labels: Integers) -> tuple[Floats, Integers]:
    """float64 logits and int64 labels. Raises DataError for non-finite logits, wrong shapes, labels
    out of range, or a class without samples."""
    wide, given = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if wide.ndim != 2 or wide.shape[1] < 2 or len(wide) == 0:
        raise DataError(
            f"logits have shape {wide.shape}, a calibrator needs (N, C) with N >= 1 and C >= 2"
        )
    if given.shape != (len(wide),) or given.dtype.kind not in "iub":
        raise DataError(f"labels are {given.dtype} {given.shape}, expected integers ({len(wide)},)")
    if not np.isfinite(wide).all():
        row = int(np.flatnonzero(~np.isfinite(wide).all(axis=1))[0])
        raise DataError(f"logits[{row}] is {wide[row].tolist()}, not finite")
    counts = np.bincount(
        np.clip(given, 0, wide.shape[1]).astype(np.int64), minlength=wide.shape[1] + 1
    )
    if given.min() < 0 or counts[-1]:
        raise DataError(
            f"labels contain {sorted({int(given.min()), int(given.max())})}, expected"
            f" 0..{wide.shape[1] - 1}"
        )
    absent = np.flatnonzero(counts[:-1] == 0).tolist()
    if absent:
        raise DataError(f"class(es) {absent} have no samples; a calibrator needs every class")
    return wide, given.astype(np.int64)


def class_log_odds(logits: Floats, k: int) -> Floats:
    """(N,) log-odds of class k against all others, of logits (N, C)."""
    return np.asarray(logits[:, k] - np.logaddexp.reduce(np.delete(logits, k, axis=1), axis=1))


def nested_tuple(values: Any) -> Any:
    """Lists and arrays as nested tuples of Python floats."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    return (
        tuple(nested_tuple(v) for v in values)
        if isinstance(values, list | tuple)
        else float(values)
    )


def _all_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_all_finite(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
