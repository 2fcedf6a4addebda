"""Checks of the stored files: logits and decisions of the bundle on disk are the checkpoint's."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.errors import PermanentError
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.decode import resize
from components.shared.models.classifier import Classifier, normalise
from components.shared.serving.bundle import MODEL, Bundle, stock_order
from components.shared.serving.predictor import Predictor, load_stock
from components.shared.vision.reference_image import reference_image

# Largest difference of a logit, relative where the logit exceeds 1: 100 times what rounding to
# float32 explains.
_TOLERANCE = 1e-4


def check_logits(
    bundle: Bundle, pixels: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    """Compare the stored model's logits with the checkpoint's.

    Where they agree to 1e-4, so do the decisions of all images whose margin is further than that
    from the threshold.

    Args:
        bundle: on disk.
        pixels: (B, S, S, 3) images of the dataset.
        logits: (B, C) of the checkpoint.

    Raises:
        PermanentError: the logits differ, or either is not finite.
    """
    stored = Predictor(bundle).logits(pixels)
    error = np.abs(stored - logits) / np.maximum(1, np.abs(logits))
    if not error.max() <= _TOLERANCE:  # also for NaN
        raise PermanentError(
            f"exported model differs from the checkpoint by {error.max():.3g} in its logits (>"
            f" {_TOLERANCE}): the checkpoint's weights are not finite, or this transformers version"
            " builds another model from them"
        )


def reference_logits(bundle: Bundle) -> list[float]:
    """Return the stored model's logits of the reference image, in the policy's order.

    With four decimals, which hide the rounding of another processor.
    """
    predictor = Predictor(bundle)
    logits = predictor.logits(reference_image(bundle.spec.image_size))[0]
    return rounded(logits)


def rounded(logits: npt.NDArray[Any]) -> list[float]:
    """Return logits (C,) as a bundle records them: with four decimals, and without -0.0."""
    return [round(float(value), 4) + 0.0 for value in logits]


def check_decisions(
    bundle: Bundle, pixels: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    """Compare what a consumer of the stock model decides with the policy's decision.

    Args:
        bundle: on disk, with a stock model.
        pixels: (B, S, S, 3) images of the dataset.
        logits: (B, C) of the checkpoint.

    Raises:
        PermanentError: another decision, where rounding does not explain it.
    """
    outcomes = bundle.policy.outcomes
    model = load_stock(bundle.path / MODEL, bundle.place(MODEL), len(bundle.policy.class_names))
    with torch.inference_mode():
        stored = model(pixel_values=Predictor(bundle).inputs(pixels)).logits.double().numpy()

    in_order = stored[:, np.argsort(stock_order(outcomes))]
    if outcomes.positive is None:
        ordered = np.sort(in_order, axis=1)
        decided, distance = in_order.argmax(axis=1), ordered[:, -1] - ordered[:, -2]
    else:
        margin = class_log_odds(in_order, outcomes.positive)
        decided, distance = (margin > 0).astype(np.int64), np.abs(margin)

    differs = decided != bundle.policy.decision(logits)
    differs &= distance > _TOLERANCE * np.maximum(1, np.abs(stored).max(axis=1))
    if differs.any():
        raise PermanentError(
            f"the stock model decides {int(differs.sum())} of {len(differs)} images of the dataset"
            " unlike the policy: calibrator or threshold are not in its weights as they should be"
        )


def check_stock(
    directory: Path, classifier: Classifier, images: npt.NDArray[np.uint8], outcomes: Outcomes
) -> None:
    """Compare a stock model on disk with the fused `classifier` that it was written from.

    Args:
        directory: of the stock model.
        classifier: with calibrator and threshold in its head.
        images: (B, S, S, 3) images of the dataset; they are resized to the classifier's size.
        outcomes: of its policy.

    Raises:
        PermanentError: the logits differ, or either is not finite.
    """
    size = classifier.spec.image_size
    pixels = torch.from_numpy(np.stack([resize(Image.fromarray(image), size) for image in images]))
    model = load_stock(directory, directory.name, len(classifier.spec.class_names))

    with torch.inference_mode():
        inputs = normalise(pixels, classifier.spec)
        stored = model(pixel_values=inputs).logits
        expected = classifier(inputs)[:, stock_order(outcomes)]

    error = float((stored - expected).abs().max())
    if not error <= _TOLERANCE * max(1.0, float(expected.abs().max())):  # also for NaN
        raise PermanentError(
            f"exported distilled head differs from the checkpoint by {error:.3g} in its logits (>"
            f" {_TOLERANCE}): this transformers version builds another model from its weights"
        )
