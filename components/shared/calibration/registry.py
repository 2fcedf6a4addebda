"""Which calibrators are there, from simple to flexible, and how does a JSON document become one
again?
"""

from typing import Any

from components.shared.calibration.binning import Histogram, Isotonic
from components.shared.calibration.calibrator import Calibrator, Logits
from components.shared.calibration.dirichlet import Beta, Dirichlet
from components.shared.calibration.linear import Platt, Temperature, VectorScaling
from components.shared.contracts.errors import ArtifactError
from components.shared.stats.metrics import Integers

# Simplest first: what is preferred among equally good ones.
CLASSES: dict[str, type[Calibrator]] = {
    cls.NAME: cls
    for cls in (Temperature, Platt, VectorScaling, Beta, Dirichlet, Isotonic, Histogram)
}
# For two classes these are the same family: offered once, under the first name.
SAME_FOR_TWO_CLASSES = {"vector": "platt"}


def names(n_classes: int) -> tuple[str, ...]:
    """The calibrators that differ for this number of classes, simplest first."""
    return tuple(name for name in CLASSES if n_classes > 2 or name not in SAME_FOR_TWO_CLASSES)


# Below this a calibrator follows single samples, and luck in the folds may make it look best; the
# thousand for isotonic regression is from scikit-learn's guide. Temperature is always there.
FEWEST_SAMPLES = {
    "platt": 100,
    "vector": 100,
    "beta": 200,
    "dirichlet": 300,
    "isotonic": 1000,
    "histogram": 1000,
}


def eligible(logits: Logits, labels: Integers) -> tuple[str, ...]:
    """The calibrators that an automatic choice may take on logits (N, C), labels (N,) int64,
    simplest first.

    A temperature that makes all probabilities equal is none of them: where even the best one does,
    the logits are biased, as after training with class weights, and Platt scaling, which can move
    them, takes its place.
    """
    n_samples, n_classes = logits.shape
    found = tuple(name for name in names(n_classes) if n_samples >= FEWEST_SAMPLES.get(name, 0))
    if not Temperature.fit(logits, labels).says_nothing:
        return found
    return found[1:] or (Platt.NAME,)


def fit(name: str, logits: Logits, labels: Integers) -> Calibrator:
    """Fit the calibrator of that name."""
    return CLASSES[name].fit(logits, labels)


def parse(document: Any, where: str) -> Calibrator:
    """Rebuild a calibrator from its JSON document. Raises ArtifactError naming every wrong field
    and its value.
    """
    if not isinstance(document, dict):
        raise ArtifactError(f"{where}: must be a JSON object, is {type(document).__name__}")
    cls = CLASSES.get(str(document.get("name")))
    if cls is None:
        raise ArtifactError(
            f"{where}: name={document.get('name')!r} must be one of {', '.join(CLASSES)}"
        )
    problems = cls.problems(document)
    if problems:
        raise ArtifactError(f"{where}: " + "; ".join(problems))
    values = {key: _tuples(value) for key, value in document.items() if key != "name"}
    try:
        calibrator = cls(**values)
        calibrator.transform([[0.0] * (calibrator.n_classes() or 2)])  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError) as error:
        raise ArtifactError(
            f"{where}: fields of {cls.NAME} have shapes that disagree ({error})"
        ) from error
    return calibrator


def _tuples(value: Any) -> Any:
    return (
        tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else float(value)
    )
