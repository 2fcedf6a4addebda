"""What the audit finds: suspicious labels, outliers, near-duplicates, and clusters that fit badly.

Label errors by cleanlab's confident learning (Northcutt et al., JAIR 2021); outliers, duplicates
and clusters by cleanlab's scores, in the manner of its Datalab. Datalab itself needs `datasets`,
which no step needs otherwise, and clusters by a density for which features of images have one
cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from cleanlab.filter import find_label_issues
from cleanlab.outlier import transform_distances_to_scores
from cleanlab.rank import get_label_quality_scores
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from components.audit_labels.audited import Audited, Floats, Integers
from components.audit_labels.cross_fit import seed_of
from components.shared.stats.bootstrap import Interval, intervals
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import weighted_mean

_DIGITS = 6  # scores are ranked as they are written, so that no last bit decides about an order
_NEIGHBOURS = 10
_OUTLIER_RANGES = 1 / 0.37037 - 1  # beyond the third quartile, as Datalab has it
# Of the median distance between nearest neighbours. Datalab's 0.13 finds none of the known
# near-identical scenes of GTSDB, half of the median finds three of six and nothing unlike.
_DUPLICATE_RATIO = 0.5
_IMAGES_PER_CLUSTER, _MOST_CLUSTERS = 40, 40
_REPLICATES = 1000


@dataclass(frozen=True)
class Pair:
    """Two images that look alike: rows of the audited images, and their cosine distance."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True)
class Cluster:
    """Images that look alike.

    Attributes:
        rows: Of the audited images, the worst first.
        n_groups: Groups among them.
        score: Mean score of their labels.
        interval_95: Of the score, over groups; None with too few.
        is_worse: Whether the whole interval is below the mean of all images.
    """

    rows: Integers
    n_groups: int
    score: float
    interval_95: Interval
    is_worse: bool


@dataclass(frozen=True)
class Findings:
    """What was found among N images.

    Attributes:
        scores: (N,) probability of the given label by a head of other groups.
        suggested: (N,) most probable class.
        suspects: Rows whose labels may be wrong, the lowest score first.
        outlier_scores: (N,) in [0, 1]; near 0 far from all other images.
        outliers: Rows, the lowest score first.
        near_duplicates: Pairs; those with different labels first, then of different groups.
        clusters: The lowest score first.
    """

    scores: Floats
    suggested: Integers
    suspects: Integers
    outlier_scores: Floats
    outliers: Integers
    near_duplicates: list[Pair]
    clusters: list[Cluster]


def find(audited: Audited, probabilities: Floats, seed: int) -> Findings:
    """Return all findings.

    Args:
        audited: N images.
        probabilities: (N, C) by heads of other groups.
        seed: Of the clusters.
    """
    labels = audited.labels
    scores = label_scores(labels, probabilities)
    unit = normalize(audited.features)
    distances, neighbours = _nearest(unit)
    outlier_scores, is_outlier = _outliers(distances)

    return Findings(
        scores=scores,
        suggested=probabilities.argmax(axis=1),
        suspects=suspects(labels, probabilities),
        outlier_scores=outlier_scores,
        outliers=_worst_first(np.flatnonzero(is_outlier), outlier_scores),
        near_duplicates=_near_duplicates(distances, neighbours, labels, audited.groups),
        clusters=_clusters(unit, scores, audited.groups, seed),
    )


def label_scores(labels: Integers, probabilities: Floats) -> Floats:
    """Return (N,) the probability of each given label, in [0, 1]."""
    found = get_label_quality_scores(labels, probabilities, method="self_confidence")
    return np.asarray(found, dtype=np.float64).round(_DIGITS)


def suspects(labels: Integers, probabilities: Floats) -> Integers:
    """Return the rows whose labels may be wrong, the lowest score first.

    Confident learning estimates how many labels of each class are really of each other one, and
    takes so many, those whose predictions speak most for the other class.

    Args:
        labels: (N,) class indices.
        probabilities: (N, C) by heads of other groups.
    """
    flagged = find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    return _worst_first(np.flatnonzero(flagged), label_scores(labels, probabilities))


def _worst_first(rows: Integers, scores: Floats) -> Integers:
    return rows[np.argsort(scores[rows], kind="stable")]


def _nearest(unit: npt.NDArray[np.float32]) -> tuple[Floats, Integers]:
    """Return cosine distances (N, k) of the nearest other images, in order, and their rows."""
    k = min(_NEIGHBOURS, len(unit) - 1)
    search = NearestNeighbors(n_neighbors=k, metric="euclidean", algorithm="brute").fit(unit)
    distances, rows = search.kneighbors()  # without an argument, no image is its own neighbour
    return (distances.astype(np.float64) ** 2 / 2).round(_DIGITS), rows.astype(np.int64)


def _outliers(distances: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return scores (N,) in [0, 1], and which images are further away than the limit."""
    mean = distances.mean(axis=1)
    scores = transform_distances_to_scores(mean, t=1, scaling_factor=float(np.median(mean)))
    low, high = np.percentile(mean, [25, 75])
    rounded = np.asarray(scores, dtype=np.float64).round(_DIGITS)
    return rounded, mean > high + _OUTLIER_RANGES * (high - low)


def _near_duplicates(
    distances: Floats, neighbours: Integers, labels: Integers, groups: Sequence[str]
) -> list[Pair]:
    limit = _DUPLICATE_RATIO * float(np.median(distances[:, 0]))
    found = {}
    for first, column in zip(*np.nonzero(distances < limit), strict=True):
        second = int(neighbours[first, column])
        pair = min(int(first), second), max(int(first), second)
        found[pair] = float(distances[first, column])

    pairs = [Pair(first, second, distance) for (first, second), distance in found.items()]
    return sorted(
        pairs,
        key=lambda pair: (
            labels[pair.first] == labels[pair.second],
            groups[pair.first] == groups[pair.second],
            pair.distance,
            pair.first,
            pair.second,
        ),
    )


def _clusters(
    unit: npt.NDArray[np.float32], scores: Floats, groups: Sequence[str], seed: int
) -> list[Cluster]:
    count = int(np.clip(len(unit) // _IMAGES_PER_CLUSTER, 1, _MOST_CLUSTERS))
    cluster_of = KMeans(count, n_init=4, random_state=seed_of(seed)).fit_predict(unit)
    overall = float(scores.mean())
    found = []
    for number in np.unique(cluster_of):
        rows = np.flatnonzero(cluster_of == number)
        of_rows = [groups[row] for row in rows.tolist()]
        bounds = intervals(
            {"": partial(weighted_mean, scores[rows])}, of_rows, _REPLICATES, seed, {"": Scale.UNIT}
        )[""]
        found.append(
            Cluster(
                rows=_worst_first(rows, scores),
                n_groups=len(set(of_rows)),
                score=round(float(scores[rows].mean()), _DIGITS),
                interval_95=bounds,
                is_worse=bounds is not None and bounds[1] < overall,
            )
        )
    return sorted(found, key=lambda cluster: (cluster.score, int(cluster.rows[0])))
