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

from components.shared.bundle import GATE, MODEL, Bundle
from components.shared.data.decode import decode, resize
from components.shared.errors import PermanentError
from components.shared.evaluation.folding import fold_of
from components.shared.evaluation.metrics import sigmoid
from components.shared.models.classifier import Classifier, ClassifierSpec, Head, normalise
from components.shared.models.gate import Gate

_SPEC = ("image_size", "image_mean", "image_std", "backbone_type", "views")


@dataclass(frozen=True)
class Answer:
    """decision: what the policy says; probability: calibrated P(positive) in [0, 1], to compare with threshold."""

    decision: str
    probability: float
    threshold: float


class Predictor:
    """The model of a bundle, on the CPU."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._spec = ClassifierSpec.from_json(
            {"class_names": bundle.policy.class_names} | {name: bundle.preprocessing.get(name) for name in _SPEC}
        )
        self._fold = fold_of(bundle.policy) if self._spec.views is None else None
        self._gate = Gate.load(bundle.path / GATE) if bundle.policy.kind == "gate" else None
        self._classifier = _stock_parts(bundle, self._spec) if bundle.stock else Classifier.load(bundle.path / MODEL)

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 of an encoded image of any supported format, whatever its file is called.

        Raises ImageRejectedError where it cannot be decoded.
        """
        return resize(decode(data, name=""), self._spec.image_size)

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(B, C) logits before folding, classes in the policy's order, of (B, S, S, 3) uint8."""
        return self._outputs(pixels)[0]

    def answers(self, pixels: npt.NDArray[np.uint8]) -> list[Answer]:
        """One answer per image of (B, S, S, 3) uint8. Raises PermanentError where the model's output is not finite."""
        (logits, gate), policy = self._outputs(pixels), self._bundle.policy
        if not np.isfinite(logits).all() or not (gate is None or np.isfinite(gate).all()):
            raise PermanentError(f"{self._bundle.path / MODEL}: the output is not finite; the weights are damaged")
        decisions, probabilities = policy.decide(logits, gate), sigmoid(policy.margin(logits))
        return [
            Answer(str(decision), float(probability), policy.threshold)
            for decision, probability in zip(decisions, probabilities, strict=True)
        ]

    def _outputs(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Logits before folding (B, C), and raw gate scores (B,) where the policy is a gate."""
        with torch.inference_mode():
            features = self._classifier.features(normalise(torch.from_numpy(pixels), self._spec))
            logits = self._classifier.head(features).double().numpy()
            if self._bundle.stock and self._bundle.policy.positive == 0:
                logits = logits[:, ::-1]  # the stock form has the positive class last
            if self._fold is not None:
                logits = self._fold.undone(logits)
            if self._gate is None:
                return logits, None
            scores = self._gate.scores(self._classifier.head.pooled(features), torch.from_numpy(logits.copy()))
        return logits, scores.double().numpy()


def _stock_parts(bundle: Bundle, spec: ClassifierSpec) -> Classifier:
    """The parts of the stock model, so that a gate sees the features that the head sees."""
    model = AutoModelForImageClassification.from_pretrained(bundle.path / MODEL).eval()
    head = Head(model.classifier.in_features, model.classifier.out_features)
    head.linear = model.classifier
    return Classifier(model.base_model, head, spec).eval()
