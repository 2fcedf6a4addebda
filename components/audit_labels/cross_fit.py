"""Class probabilities of each image by a head that has seen no image of its group.

The head is a logistic regression on standardised features. Of several strengths of the penalty the
one with the least cross-fitted log-loss is used; the choice among five flatters that log-loss by
little, and decides about no model.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.audit_labels.audited import Floats, Integers

# Inverse strengths, as scikit-learn's C: from hardly more than class frequencies to hardly any.
_INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_MOST_ITERATIONS = 1000

Folds = list[tuple[Integers, Integers]]


@dataclass(frozen=True)
class CrossFitted:
    """Out-of-fold predictions.

    Attributes:
        probabilities: (N, C) float64, each row by a head of other groups.
        inverse_penalty: C of the logistic regressions.
        n_folds: Number of folds.
        log_loss: Of the probabilities against the given labels.
        log_loss_of_frequencies: What the classes' frequencies alone reach.
    """

    probabilities: Floats
    inverse_penalty: float
    n_folds: int
    log_loss: float
    log_loss_of_frequencies: float

    @property
    def explained(self) -> float:
        """Fraction of the frequencies' log-loss that the head explains; at most 0: nothing."""
        return 1 - self.log_loss / self.log_loss_of_frequencies


def seed_of(seed: int) -> int:
    """Return a seed as scikit-learn takes it, below 2**32, of the phase's."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def folds_by_group(
    labels: Integers, groups: Sequence[str], class_names: Sequence[str], n_folds: int, seed: int
) -> Folds | str:
    """Return the rows of training and of held-out images of every fold, or why there are none.

    Args:
        labels: (N,) class indices.
        groups: (N,) group names; none is in two folds.
        class_names: All classes.
        n_folds: Number of folds, fewer where a class has fewer groups.
        seed: Of the assignment.
    """
    of_class = [
        len(
            {group for group, label in zip(groups, labels.tolist(), strict=True) if label == number}
        )
        for number in range(len(class_names))
    ]
    fewest = int(np.argmin(of_class))
    if of_class[fewest] < 2:
        return (
            f"class {class_names[fewest]} has {of_class[fewest]} group(s) in TRAIN and VAL_SELECT;"
            " cross-fitting needs 2"
        )

    n_used = min(n_folds, of_class[fewest])
    splitter = StratifiedGroupKFold(n_used, shuffle=True, random_state=seed_of(seed))
    folds = list(splitter.split(labels[:, None], labels, groups))
    for train, _ in folds:
        lacking = set(range(len(class_names))) - set(labels[train].tolist())
        if lacking:
            return (
                f"all groups of class {class_names[min(lacking)]} came into one of {n_used} folds;"
                " set another seed or a smaller n_folds"
            )
    return folds


def cross_fitted(features: npt.NDArray[np.float32], labels: Integers, folds: Folds) -> CrossFitted:
    """Fit a head for every fold and predict the images that it has not seen.

    Args:
        features: (N, F) float32.
        labels: (N,) class indices; every training part has every class.
        folds: Rows of training and of held-out images; every image is held out once.
    """
    frequencies = np.bincount(labels) / len(labels)
    best: tuple[float, float, Floats] | None = None
    for inverse_penalty in _INVERSE_PENALTIES:
        probabilities = _predicted(features, labels, folds, inverse_penalty)
        loss = _log_loss(probabilities[np.arange(len(labels)), labels])
        if best is None or loss < best[0]:
            best = loss, inverse_penalty, probabilities

    assert best is not None
    loss, inverse_penalty, probabilities = best
    return CrossFitted(
        probabilities=probabilities,
        inverse_penalty=inverse_penalty,
        n_folds=len(folds),
        log_loss=loss,
        log_loss_of_frequencies=_log_loss(frequencies[labels]),
    )


def _predicted(
    features: npt.NDArray[np.float32], labels: Integers, folds: Folds, inverse_penalty: float
) -> Floats:
    head = make_pipeline(
        StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=_MOST_ITERATIONS)
    )
    with warnings.catch_warnings():
        # A weak penalty may need more iterations; the log-loss then judges where it stopped.
        warnings.simplefilter("ignore", category=UserWarning)
        found = cross_val_predict(head, features, labels, cv=folds, method="predict_proba")
    return np.asarray(found, dtype=np.float64)


def _log_loss(probability_of_label: Floats) -> float:
    return round(float(-np.log(np.maximum(probability_of_label, 1e-12)).mean()), 6)
