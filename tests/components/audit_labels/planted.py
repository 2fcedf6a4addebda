"""Features with known errors: four clouds of points, two of each class."""

from dataclasses import dataclass

import numpy as np

N, WIDTH = 240, 12


@dataclass(frozen=True)
class Planted:
    """Images (N,): their features, labels as given and in truth, groups, cloud, and what is wrong.

    probabilities: (N, 2) as a good head has them. copies: rows of two images that look alike and
    have different labels.
    """

    features: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    groups: list[str]
    blob: np.ndarray
    probabilities: np.ndarray
    flipped: list[int]
    outlier: int
    copies: tuple[int, int]


def planted(seed: int = 0) -> Planted:
    """Flip ten labels, one of them of an image that has a copy; move one image far away."""
    rng = np.random.default_rng(seed)
    blob = np.arange(N) % 4
    truth = blob % 2
    centres = 6 * np.eye(4, WIDTH)
    features = (centres[blob] + rng.normal(size=(N, WIDTH))).astype(np.float32)
    features[200, -1] = 30
    features[4] = features[0] + np.float32(0.01)

    flipped = [0, *range(11, 20)]
    labels = truth.copy()
    labels[flipped] = 1 - labels[flipped]
    sure = np.where(truth == 1, 0.95, 0.05) + rng.uniform(-0.04, 0.04, N)
    groups = [f"place{n // 2}" for n in range(N)]
    return Planted(
        features=features,
        labels=labels,
        truth=truth,
        groups=groups,
        blob=blob,
        probabilities=np.stack([1 - sure, sure], axis=1),
        flipped=flipped,
        outlier=200,
        copies=(0, 4),
    )
