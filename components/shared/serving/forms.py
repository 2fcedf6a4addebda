"""The predictor of each form of a bundle's model."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from components.shared.contracts.formats import TRANSFORMERS
from components.shared.serving.answer import Answer
from components.shared.serving.bundle import Bundle

_Pixels = npt.NDArray[np.uint8]


class FormPredictor(Protocol):
    """What answers, whichever form of the model it computes with."""

    def pixels(self, data: bytes) -> _Pixels:
        """(S, S, 3) uint8 of an encoded image; raises ImageRejectedError."""

    def answers(self, pixels: _Pixels, *, all_views: bool = False) -> list[Answer]:
        """Return one answer per image of (B, S, S, 3) uint8; `all_views`: without early exit."""


def open_predictor(bundle: Bundle, form: str) -> FormPredictor:
    """Return what answers with a form of the bundle; raise ArtifactError where it has none.

    The imports take seconds, which a refused bundle need not wait for.
    """
    if form == TRANSFORMERS:
        from components.shared.serving.predictor import Predictor

        return Predictor(bundle)

    from components.shared.serving.formats.onnx_predictor import OnnxPredictor

    return OnnxPredictor(bundle, form)
