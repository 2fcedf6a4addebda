"""Interface of calibrators: maps from logits to calibrated probabilities, stored as JSON.

Each kind derives from `Calibrator`; `registry` lists them. All work on logits (N, C) and serve two
and more classes.

Own code, because scikit-learn's calibrators wrap a classifier, smooth Platt's targets and have no
beta, Dirichlet or vector scaling; netcal and dirichletcal fail on current versions of their
dependencies. Pickles are never written: a calibrator is a JSON document of a few numbers.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self, get_args

import numpy as np
import numpy.typing as npt

from components.shared.contracts.documents import is_number
from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import shown
from components.shared.stats.metrics import Floats, Integers

LogitArray = npt.NDArray[np.floating[Any]]
# Probabilities are clipped to [EPSILON, 1 - EPSILON], clear of log(0), as scikit-learn's log_loss
# does.
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Calibrator(ABC):
    """A fitted calibrator.

    Fields are numbers or nested tuples of numbers, which are what the JSON document holds.
    """

    NAME: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, logits: LogitArray, labels: Integers) -> Self:
        """Fit on logits (N, C) and labels (N,) int64.

        Raises:
            DataError: what `checked` refuses, or samples that determine no fit.
        """

    @abstractmethod
    def log_probabilities(self, logits: LogitArray) -> Floats:
        """Return (N, C) float64, finite, each row the logarithms of probabilities."""

    @abstractmethod
    def n_classes(self) -> int | None:
        """Return the number of classes it was fitted for; None where it serves any number."""

    def transform(self, logits: LogitArray) -> Floats:
        """Return (N, C) float64 calibrated probabilities."""
        return np.asarray(np.exp(self.log_probabilities(logits)))

    def affine(self, n_classes: int) -> tuple[Floats, Floats] | None:
        """Return (scale, offset), (C,) each, such that softmax(scale * logits + offset) is the map.

        None where there is no such form. What has this form can be put into the weights of a linear
        head.
        """
        del n_classes
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document: name and fields, tuples as lists."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"name": self.NAME, **document}

    @classmethod
    def field_problems(cls, document: dict[str, Any]) -> list[str]:
        """Return what is wrong with a document's fields, each with its value."""
        expected = {field.name: field.type for field in fields(cls)}
        problems = [
            f"unknown key {shown(key)}" for key in document if key not in (*expected, "name")
        ]
        for name, hint in expected.items():
            if name not in document:
                problems.append(f"{name} is missing")
            elif not _fits(document[name], hint):
                wanted = "be a finite number" if hint is float else "hold finite numbers"
                problems.append(f"{name}={shown(document[name])} must {wanted}")
        return problems


def checked(logits: LogitArray, labels: Integers) -> tuple[Floats, Integers]:
    """Return logits as float64 and labels as int64.

    Raises:
        DataError: logits that are not finite, wrong shapes, or labels out of range.
    """
    logits64, given = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits64.ndim != 2 or logits64.shape[1] < 2 or len(logits64) == 0:
        raise DataError(
            f"logits have shape {logits64.shape}, a calibrator needs (N, C) with N >= 1 and C >= 2"
        )

    n_samples, n_classes = logits64.shape
    if given.shape != (n_samples,) or given.dtype.kind not in "iub":
        raise DataError(f"labels are {given.dtype} {given.shape}, expected integers ({n_samples},)")

    if not np.isfinite(logits64).all():
        row = int(np.flatnonzero(~np.isfinite(logits64).all(axis=1))[0])
        raise DataError(f"logits[{row}] is {logits64[row].tolist()}, not finite")

    # Labels that are too large are counted in one bin beyond the classes.
    clipped = np.clip(given, 0, n_classes).astype(np.int64)
    counts = np.bincount(clipped, minlength=n_classes + 1)
    if given.min() < 0 or counts[-1]:
        extremes = sorted({int(given.min()), int(given.max())})
        raise DataError(f"labels contain {extremes}, expected 0..{n_classes - 1}")

    return logits64, given.astype(np.int64)


def class_log_odds(logits: Floats, k: int) -> Floats:
    """Return (N,) the log-odds of class k against all others, from logits (N, C)."""
    return np.asarray(logits[:, k] - np.logaddexp.reduce(np.delete(logits, k, axis=1), axis=1))


def nested_tuple(values: Any) -> Any:
    """Return lists and arrays as nested tuples of Python floats."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return tuple(nested_tuple(item) for item in values)
    return float(values)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value is a number, or lists of numbers as deep as the field's type."""
    if hint is float:
        return is_number(value)
    if not isinstance(value, list | tuple) or not value:
        return False
    item, _ = get_args(hint)
    return all(_fits(entry, item) for entry in value)
