"""Choice of images for labelling: deferred ones first, then uncertain ones that differ.

Uncertainty alone buys the same picture many times. As in diverse mini-batch active learning
(Zhdanov 2019, arXiv 1901.05954) only the most uncertain images are candidates, and of these the
seeds of k-means++ are taken, weighted by uncertainty: each is drawn with a probability proportional
to its weight times its squared distance from the nearest one that was drawn before.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

# Candidates per chosen image: Zhdanov's experiments found 10 to 50 alike.
_N_CANDIDATES = 10


class Choice(NamedTuple):
    """The chosen images, the first to label first.

    Attributes:
        rows: (n,) int64.
        deferred: (n,) bool, whether the policy defers the image; else it was chosen as uncertain.
    """

    rows: Rows
    deferred: npt.NDArray[np.bool_]


def choose(
    features: npt.NDArray[np.float32],
    confidence: Floats,
    deferred: npt.NDArray[np.bool_],
    groups: Rows,
    count: int,
    seed: int,
) -> Choice:
    """Choose up to `count` of N images, one of each set of near-duplicates.

    All deferred images come first, where they are more than `count` the ones that differ.

    Args:
        features: (N, 2h).
        confidence: (N,) larger is more confident, in any unit: only the order counts.
        deferred: (N,) whether the policy defers the image.
        groups: (N,) number of the set of near-duplicates.
        count: Number of images to choose.
        seed: Of the draws.
    """
    # The least confident of each set, a deferred one where there is any.
    order = np.lexsort((confidence, ~deferred))
    _, first = np.unique(groups[order], return_index=True)
    rows = order[np.sort(first)]

    n_deferred = int(deferred[rows].sum())
    chosen = _diverse(features, rows[:n_deferred], count, seed)
    rest = _diverse(features, rows[n_deferred:], count - len(chosen), seed)
    found = np.concatenate([chosen, rest])
    return Choice(found, deferred[found])


def _diverse(features: npt.NDArray[np.float32], rows: Rows, count: int, seed: int) -> Rows:
    """Return up to `count` of `rows`, which stand in the order of their confidence."""
    if len(rows) <= count or count == 0:
        return rows[:count]

    from sklearn.cluster import kmeans_plusplus

    candidates = rows[: _N_CANDIDATES * count]
    # The most uncertain candidate weighs 1, the least uncertain nearly nothing.
    weights = 1.0 - np.arange(len(candidates)) / len(candidates)
    values = features[candidates].astype(np.float64)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    _, drawn = kmeans_plusplus(values, count, sample_weight=weights, random_state=seed)

    # Where fewer images differ than are asked for, some are drawn twice.
    distinct = candidates[list(dict.fromkeys(drawn.tolist()))]
    others = candidates[~np.isin(candidates, distinct)]
    return np.concatenate([distinct, others[: count - len(distinct)]])
