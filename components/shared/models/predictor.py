"""What does a deployed bundle answer for an image?

Pixels are decoded at full size, never reduced by a JPEG's DCT as a large training image may be: the answer is then
the stock pipeline's own. The stored model carries calibrator and threshold, so nothing is stored twice; undoing the
fold gives the logits before it, exact to float32 rounding (1e-6 for thresholds within 16 log-odds), and the policy
decides on those.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForImageClassification

from components.shared.bundle import MODEL, Bundle
from components.shared.data.decode import decode, resize
from components.shared.errors import PermanentError
from components.shared.evaluation.folding import fold_of
from components.shared.evaluation.metrics import sigmoid
from components.shared.models.classifier import Classifier, ClassifierSpec, normalise


@dataclass(frozen=True)
class Answer:
    """decision: what the policy says; probability: calibrated P(positive) in [0, 1], to compare with threshold."""

    decision: str
    probability: float
    threshold: float


class Predictor:
    """The model of a bundle, on the CPU."""

    def __init__(self, bundle: Bundle) -> None:
        values = bundle.preprocessing
        self._spec = ClassifierSpec(
            class_names=bundle.policy.class_names,
            image_size=values["image_size"],
            image_mean=tuple(values["image_mean"]),
            image_std=tuple(values["image_std"]),
            backbone_type=values["backbone_type"],
        )
        self._bundle = bundle
        self._fold = fold_of(bundle.policy)
        self._model = (
            AutoModelForImageClassification.from_pretrained(bundle.path / MODEL).eval()
            if bundle.stock
            else Classifier.load(bundle.path / MODEL)
        )

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 of an encoded image of any supported format, whatever its file is called.

        Raises ImageRejectedError where it cannot be decoded.
        """
        return resize(decode(data, name=""), self._spec.image_size)

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(B, C) logits before folding, classes in the policy's order, of (B, S, S, 3) uint8."""
        with torch.inference_mode():
            output = self._model(normalise(torch.from_numpy(pixels), self._spec))
        logits = np.array(getattr(output, "logits", output).numpy(), dtype=np.float64)
        if self._bundle.stock and self._bundle.policy.positive == 0:
            logits = logits[:, ::-1]  # the stock form has the positive class last
        return self._fold.undone(logits)

    def answers(self, pixels: npt.NDArray[np.uint8]) -> list[Answer]:
        """One answer per image of (B, S, S, 3) uint8. Raises PermanentError where the model's output is not finite."""
        logits, policy = self.logits(pixels), self._bundle.policy
        if not np.isfinite(logits).all():
            raise PermanentError(f"{self._bundle.path / MODEL}: the output is not finite; the weights are damaged")
        decisions, probabilities = policy.decide(logits), sigmoid(policy.margin(logits))
        return [
            Answer(str(decision), float(probability), policy.threshold)
            for decision, probability in zip(decisions, probabilities, strict=True)
        ]
