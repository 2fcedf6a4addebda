"""Two-sample tests by permutation of groups: a cross-fitted classifier, and MMD.

Each row is one image of one group, the unit that is permuted. Under the hypothesis that old and new
groups are draws of one population, which of them are the new ones is as good as random, so the
p-values are exact whatever the features are (Hemerik and Goeman, TEST 2018, with the observed
labelling among the permutations).

Own code: the libraries for drift (alibi-detect, frouros, hyppo) permute images one by one and fit
or sum anew for each permutation. Ridge regression predicts linearly in the labels, and MMD is a
quadratic form of them, so here all permutations are one product of matrices.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.shared.contracts.random_streams import DriftStream
from components.shared.stats.metrics import Bools, Floats

N_FOLDS = 10
# Of the mean of the kernel's diagonal; weak features are kept, and no direction rules alone.
RIDGE = 1.0
_SMALL = 1e-12


@dataclass(frozen=True)
class TwoSample:
    """Result of a test.

    Attributes:
        statistic: larger for more different samples.
        p_value: fraction of labellings, the observed one included, with at least this statistic.
    """

    statistic: float
    p_value: float


@dataclass(frozen=True)
class ClassifierTest(TwoSample):
    """Result of the classifier test, whose statistic is the AUROC of old against new.

    scores: (n,) float64 of each image by a classifier that has not seen it; larger looks newer.
    """

    scores: Floats


def permuted_labels(is_new: Bools, n_permutations: int, seed: int) -> npt.NDArray[np.float64]:
    """Return (n, 1 + n_permutations) labels 0 and 1: those observed, then permutations of them."""
    rng = np.random.default_rng([seed, len(is_new)])
    columns = np.repeat(is_new.astype(np.float64)[:, None], 1 + n_permutations, axis=1)
    columns[:, 1:] = rng.permuted(columns[:, 1:], axis=0)
    return columns


def standardised(features: npt.NDArray[np.floating]) -> Floats:
    """Return (n, d) float64 with mean 0 and deviation 1 in each column that varies.

    The scales are those of old and new images together, so that they do not depend on the labels.
    """
    values = features.astype(np.float64)
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    varies = deviation > _SMALL * np.maximum(1, np.abs(values).max(axis=0))
    return np.asarray(centred[:, varies] / deviation[varies])


def classifier_test(values: Floats, labels: Floats, seed: int) -> ClassifierTest:
    """Test whether a classifier tells new from old images that it has not seen.

    A classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017). The classifier is ridge
    regression on the labels, cross-fitted in folds that do not depend on them, and its statistic is
    the AUROC of the held-out scores, which uses more of them than the accuracy does.

    Args:
        values: (n, d) `standardised` features.
        labels: (n, 1 + P) of `permuted_labels`.
        seed: of the folds.
    """
    centred = labels - labels[:, :1].mean()
    scores = _cross_fitted(values, seed) @ centred
    statistics = _auroc(scores, labels)
    return ClassifierTest(float(statistics[0]), _p_value(statistics), scores[:, 0])


def mmd_test(values: Floats, labels: Floats) -> TwoSample:
    """Test by the unbiased squared maximum mean discrepancy with a Gaussian kernel.

    Its width is the median distance (Gretton et al., JMLR 2012, equation 3).

    Args:
        values: (n, d) `standardised` features.
        labels: (n, 1 + P) of `permuted_labels`.
    """
    squared = _squared_distances(values)
    median = np.median(squared[np.triu_indices(len(squared), 1)])
    kernel = np.exp(-squared / max(float(median), _SMALL))
    np.fill_diagonal(kernel, 0)

    n_new = labels[:, 0].sum()
    n_old = len(labels) - n_new
    within_new = np.einsum("np,np->p", labels, kernel @ labels)
    from_new = kernel.sum(axis=1) @ labels
    across = from_new - within_new
    within_old = kernel.sum() - 2 * across - within_new

    statistics = (
        within_new / (n_new * (n_new - 1))
        + within_old / (n_old * (n_old - 1))
        - 2 * across / (n_new * n_old)
    )
    return TwoSample(float(statistics[0]), _p_value(statistics))


def _cross_fitted(values: Floats, seed: int) -> Floats:
    """Return (n, n): held-out scores are this matrix times the centred labels."""
    kernel = values @ values.T / max(values.shape[1], 1)
    ridge = RIDGE * max(float(np.trace(kernel)) / len(kernel), _SMALL)
    rng = np.random.default_rng([seed, len(values), DriftStream.FOLDS])
    fold = rng.permutation(len(values)) % N_FOLDS

    smoother: Floats = np.zeros(kernel.shape)
    for number in range(N_FOLDS):
        held_out, fitted = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        gram = kernel[np.ix_(fitted, fitted)] + ridge * np.eye(len(fitted))
        rows = np.linalg.solve(gram, kernel[np.ix_(fitted, held_out)]).T
        smoother[np.ix_(held_out, fitted)] = rows

    return smoother


def _auroc(scores: Floats, labels: Floats) -> Floats:
    """Return (P,) AUROC of each column of scores (n, P) against labels (n, P)."""
    from scipy.stats import rankdata

    n_new = labels[:, 0].sum()
    n_old = len(labels) - n_new
    ranks = rankdata(scores, axis=0)
    above = (ranks * labels).sum(axis=0) - n_new * (n_new + 1) / 2
    return np.asarray(above / (n_new * n_old))


def _squared_distances(values: Floats) -> Floats:
    from scipy.spatial.distance import pdist, squareform

    return np.asarray(squareform(pdist(values, "sqeuclidean")))


def _p_value(statistics: Floats) -> float:
    """Return the fraction of statistics that reach the first; rounding makes equal ones differ."""
    reached = statistics >= statistics[0] - 1e-9 * max(1.0, abs(float(statistics[0])))
    return float(reached.mean())
