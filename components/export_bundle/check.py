"""Do the stored files answer as the policy does? Asked of the bundle as it lies on disk, before it
is handed over.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from components.shared.contracts.errors import PermanentError
from components.shared.data.decode import resize
from components.shared.models.classifier import Classifier, normalise
from components.shared.serving.bundle import Bundle
from components.shared.serving.predictor import Predictor

# Largest difference of a logit, relative where the logit exceeds 1, that fp32 rounding explains,
# with a margin of 100.
_TOLERANCE = 1e-4


def check_logits(
    bundle: Bundle, pixels: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    """Compare what the stored model says of `pixels` (B, S, S, 3) with the checkpoint's `logits`
    (B, C).

    Where they agree to 1e-4, so do the decisions of all images that are further than that from the
    threshold. Raises PermanentError where they do not, or where either is not finite.
    """
    error = np.abs(Predictor(bundle).logits(pixels) - logits) / np.maximum(1, np.abs(logits))
    if not error.max() <= _TOLERANCE:  # also for NaN
        raise PermanentError(
            f"exported model differs from the checkpoint by {error.max():.3g} in its logits (>"
            f" {_TOLERANCE}): the checkpoint's weights are not finite, or this transformers version"
            " builds another model from them"
        )


def check_stock(
    directory: Path, classifier: Classifier, images: npt.NDArray[np.uint8], positive: int
) -> None:
    """Compare a stock model as it lies on disk with the folded `classifier` it was written from, on
    images (B, S, S, 3) resized to its size. Raises PermanentError as `check_logits`."""
    size = classifier.spec.image_size
    pixels = torch.from_numpy(np.stack([resize(Image.fromarray(image), size) for image in images]))
    with torch.inference_mode():
        inputs = normalise(pixels, classifier.spec)
        stored = (
            AutoModelForImageClassification.from_pretrained(directory)
            .eval()(pixel_values=inputs)
            .logits
        )
        expected = classifier(inputs)[:, [1 - positive, positive]]
    error = float((stored - expected).abs().max())
    if not error <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise PermanentError(
            f"exported student differs from the checkpoint by {error:.3g} in its logits"
        )
