"""Predictions of a deployed bundle: preprocessing, model, calibrator and policy.

Pixels are decoded at full size, never reduced by a JPEG's DCT as a large training image may be: the
answer is then the stock pipeline's own. The stored model carries calibrator and threshold, so
nothing is stored twice; undoing the fold gives the logits before it, exact to float32 rounding
(1e-6 for thresholds within 16 log-odds), and the policy decides on those.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForImageClassification

from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.errors import PermanentError
from components.shared.data.decode import decode, resize
from components.shared.models.classifier import Classifier, ClassifierSpec, Head, normalise
from components.shared.models.gate import Gate
from components.shared.policies.early_exit import EarlyExit
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import DEFER, Policy
from components.shared.serving.bundle import GATE, MODEL, Bundle, stock_order
from components.shared.stats.metrics import Bools, Floats

_N_SHOWN = 5  # classes whose probabilities an answer has
_SPEC = ("image_size", "image_mean", "image_std", "backbone_type", "views")


@dataclass(frozen=True)
class Answer:
    """Answer of the policy for one image.

    Attributes:
        decision: name of an outcome, the names of several that the policy cannot tell apart, or
            "defer".
        probability: calibrated, in [0, 1]: of the positive class; of a multiclass task, of the most
            probable class.
        threshold: what the policy compares the probability with; None where it compares something
            else.
        probabilities: of a multiclass task, the most probable classes, at most five, by name.
        views: number of views that were used, of a model of several; of 1, the probabilities are
            the full image's.
    """

    decision: str | list[str]
    probability: float
    threshold: float | None
    probabilities: dict[str, float] | None = None
    views: int | None = None


class Predictor:
    """The model of a bundle, on the CPU."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._spec = ClassifierSpec.from_json(
            {"class_names": bundle.policy.class_names}
            | {name: bundle.preprocessing.get(name) for name in _SPEC}
        )
        self._fold = logit_affine_of(bundle.policy) if self._spec.views is None else None
        self._gate = Gate.load(bundle.path / GATE) if bundle.policy.kind == "gate" else None
        self._classifier = (
            _stock_parts(bundle, self._spec)
            if bundle.stock
            else Classifier.load(bundle.path / MODEL)
        )

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 of an encoded image of any supported format, whatever its file is called.

        Raises ImageRejectedError where it cannot be decoded.
        """
        return resize(decode(data), self._spec.image_size)

    def inputs(
        self, pixels: npt.NDArray[np.uint8], *, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """Return the model's input for (B, S, S, 3) uint8: `normalise` with the bundle's values."""
        return normalise(torch.from_numpy(pixels), self._spec, first=first, last=last)

    def features(
        self, pixels: npt.NDArray[np.uint8], *, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """Return features (B, 2h) of (B, S, S, 3) uint8; one batch.

        Of views number `first` to `last` they are (B, V, 2h).
        """
        return self._classifier.features(self.inputs(pixels, first=first, last=last))

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(B, C) logits before folding, classes in the policy's order, of (B, S, S, 3) uint8."""
        with torch.inference_mode():
            return self._outputs(self.features(pixels))[0]

    def answers(self, pixels: npt.NDArray[np.uint8], *, all_views: bool = False) -> list[Answer]:
        """Return one answer per image of (B, S, S, 3) uint8.

        Of several views no more are computed than needed, unless `all_views`. Raises PermanentError
        where the model's output is not finite.
        """
        with torch.inference_mode():
            if self._bundle.early_exit is None or all_views:
                count = None if self._spec.views is None else self._spec.views.count
                return self._decided(self.features(pixels), count)
            return self._answers_early(pixels, self._bundle.early_exit)

    def _answers_early(self, pixels: npt.NDArray[np.uint8], early_exit: EarlyExit) -> list[Answer]:
        """Answer from the full images, and from all views where that is not enough.

        The views of all images that need them are one batch.
        """
        whole = self.features(pixels, last=1)
        # Of one view, every aggregation gives that view's margin.
        positive = self._bundle.policy.outcomes.positive_index
        margins = class_log_odds(self._outputs(whole)[0], positive)
        answers = self._decided(whole, 1)
        rest = np.flatnonzero(~early_exit.exits(margins))
        if len(rest):
            features = torch.cat([whole[rest], self.features(pixels[rest], first=1)], dim=1)
            for row, answer in zip(rest, self._decided(features, early_exit.n_views), strict=True):
                answers[row] = answer

        return answers

    def _decided(self, features: torch.Tensor, views: int | None) -> list[Answer]:
        (logits, gate), policy = self._outputs(features), self._bundle.policy
        if not np.isfinite(logits).all() or not (gate is None or np.isfinite(gate).all()):
            raise PermanentError(
                f"{self._bundle.path / MODEL}: the output is not finite; the weights are damaged"
            )

        answered, sets = policy.answers(logits, gate), policy.answer_sets(logits)
        probabilities = policy.probabilities(logits)
        return [
            _answer(policy, members if answers else None, values, views)
            for answers, members, values in zip(answered, sets, probabilities, strict=True)
        ]

    def _outputs(
        self, features: torch.Tensor
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Logits before folding (B, C), and raw gate scores (B,) where the policy is a gate."""
        logits = self._classifier.head(features).double().numpy()
        if self._bundle.stock:
            logits = logits[:, np.argsort(stock_order(self._bundle.policy.outcomes))]
        if self._fold is not None:
            logits = self._fold.inverse(logits)
        if self._gate is None:
            return logits, None

        scores = self._gate.scores(
            self._classifier.head.pooled(features), torch.from_numpy(logits.copy())
        )

        return logits, scores.double().numpy()


def _answer(
    policy: Policy, members: Bools | None, probabilities: Floats, views: int | None
) -> Answer:
    """Return the answer with these of K outcomes, None for a deferral, and their probabilities."""
    names = policy.outcomes.names
    decision: str | list[str] = DEFER
    if members is not None:
        named = [name for name, is_member in zip(names, members, strict=True) if is_member]
        decision = named[0] if len(named) == 1 else named

    if policy.outcomes.positive is not None:
        return Answer(decision, float(probabilities[1]), policy.threshold, views=views)

    top = np.argsort(-probabilities, kind="stable")[:_N_SHOWN].tolist()
    return Answer(
        decision,
        probability=float(probabilities[top[0]]),
        threshold=policy.threshold if policy.kind == "softmax" else None,
        probabilities={names[k]: float(probabilities[k]) for k in top},
        views=views,
    )


def _stock_parts(bundle: Bundle, spec: ClassifierSpec) -> Classifier:
    """The parts of the stock model, so that a gate sees the features that the head sees."""
    model = AutoModelForImageClassification.from_pretrained(bundle.path / MODEL).eval()
    head = Head(model.classifier.in_features, model.classifier.out_features)
    head.linear = model.classifier
    return Classifier(model.base_model, head, spec).eval()
