"""Registry of calibrators, from simple to flexible, and the reader of their JSON documents."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.shared.calibration.binning import Histogram, Isotonic
from components.shared.calibration.calibrator import Calibrator, LogitArray, nested_tuple
from components.shared.calibration.dirichlet import Beta, Dirichlet
from components.shared.calibration.linear import Platt, Temperature, VectorScaling
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import shown
from components.shared.contracts.outcomes import MOST_CLASSES
from components.shared.stats.metrics import Integers

# Simplest first: of equally good calibrators the first is preferred. Configurations take their
# choices from the keys.
CLASSES: dict[str, type[Calibrator]] = {
    cls.NAME: cls
    for cls in (Temperature, Platt, VectorScaling, Beta, Dirichlet, Isotonic, Histogram)
}
# For two classes these are the same family: it is offered once, under the first name.
SAME_FOR_TWO_CLASSES = {"vector": "platt"}


def names(n_classes: int) -> tuple[str, ...]:
    """Return the calibrators that differ for this number of classes, simplest first."""
    return tuple(name for name in CLASSES if n_classes > 2 or name not in SAME_FOR_TWO_CLASSES)


# With fewer groups a calibrator follows single ones, and luck in the folds may make it look best;
# the thousand for isotonic regression is from scikit-learn's guide. Frames of one group count once.
# Temperature needs no minimum.
FEWEST_GROUPS = {
    "platt": 100,
    "vector": 100,
    "beta": 200,
    "dirichlet": 300,
    "isotonic": 1000,
    "histogram": 1000,
}


# Dirichlet calibration has C (C + 1) parameters: with more classes one comparison takes minutes.
MOST_COMPARED_CLASSES = {"dirichlet": 20}


def fit(
    name: str, logits: LogitArray, labels: Integers, groups: Sequence[str] | None = None
) -> Calibrator:
    """Fit the calibrator of that name on logits (N, C), labels (N,) int64 and groups (N,).

    Raises:
        DataError: it cannot be fitted on these samples; the message says why.
    """
    if name == Dirichlet.NAME:
        return Dirichlet.fit(logits, labels, groups)
    return CLASSES[name].fit(logits, labels)


def parse(document: Any, where: str) -> Calibrator:
    """Rebuild a calibrator from its JSON document.

    Args:
        document: the parsed JSON.
        where: name of the document in error messages.

    Raises:
        ArtifactError: a field is wrong; the message names every such field and its value.
    """
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: must be a JSON object, is {type(document).__name__}")

    name = document.get("name")
    cls = CLASSES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ArtifactError(
            f"{where}: name={shown(document.get('name'))} must be one of {', '.join(CLASSES)}"
        )

    problems = cls.field_problems(document)
    if problems:
        raise ArtifactError(f"{where}: " + "; ".join(problems))

    longest = max((len(value) for value in document.values() if isinstance(value, list)), default=0)
    if longest > MOST_CLASSES:
        raise ArtifactError(f"{where}: is for {longest} classes, at most {MOST_CLASSES:,}")

    values = {key: nested_tuple(value) for key, value in document.items() if key != "name"}
    try:
        calibrator = cls(**values)
        # One sample shows whether the fields' shapes agree.
        calibrator.transform(np.zeros((1, calibrator.n_classes() or 2)))
    except (TypeError, ValueError, IndexError) as error:
        raise ArtifactError(
            f"{where}: fields of {cls.NAME} have shapes that disagree ({error})"
        ) from error

    return calibrator
