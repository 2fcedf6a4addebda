"""What a bundle answers to images of VAL_TEST, through the code that users run, and how fast."""

import numpy as np
import numpy.typing as npt

from components.promote_bundle.challenger import Images
from components.shared.policies.predictions import Predictions
from components.shared.serving import latency
from components.shared.serving.bundle import Bundle
from components.shared.serving.latency import N_TIMED
from components.shared.stats.metrics import Integers
from components.shared.vision.classifier_spec import ClassifierSpec

_BATCH = 32  # images


def served_predictions(bundle: Bundle, images: Images) -> Predictions:
    """Return what the policy of a bundle decides on images of the data set, of all views.

    Raises ArtifactError where a file of the model is refused.
    """
    from components.shared.serving.predictor import Predictor  # imports torch

    predictor = Predictor(bundle)
    found = [
        predictor.scores(_pixels(images, rows, bundle.spec))
        for rows in np.array_split(
            np.arange(len(images.positions)), max(1, len(images.positions) // _BATCH)
        )
    ]
    logits = np.concatenate([scores for scores, _ in found])
    gates = [gate for _, gate in found if gate is not None]
    return Predictions.of(
        bundle.policy,
        images.truth(bundle.policy.outcomes),
        images.groups,
        logits,
        np.concatenate(gates) if gates else None,
    )


def median_latency_ms(bundle: Bundle, images: Images) -> float:
    """Return the median time of an answer to one image, in milliseconds, from its pixels on."""
    from components.shared.serving.predictor import Predictor  # imports torch

    rows = np.arange(len(images.positions))[:N_TIMED, None]
    return latency.median_latency_ms(
        Predictor(bundle), (_pixels(images, row, bundle.spec) for row in rows)
    )


def size_problem(spec: ClassifierSpec, image_size: int) -> str:
    """Return why images of the data set are no input of a model; empty where they are."""
    if spec.image_size <= image_size:
        return ""
    return (
        f"the champion takes images of {spec.image_size} pixels, the data set has them at"
        f" {image_size}; ingest with image_size={spec.image_size} or more"
    )


def _pixels(images: Images, rows: Integers, spec: ClassifierSpec) -> npt.NDArray[np.uint8]:
    """Return (n, S, S, 3) uint8 at the size that the model takes."""
    return images.data.resized(spec.image_size).images(images.positions[rows])
