"""Predictions of a deployed bundle: preprocessing, model, calibrator and policy.

Pixels are decoded at full size, never reduced by a JPEG's DCT as a large training image may be: the
answer is then the stock pipeline's own. The stored model carries calibrator and threshold, so
nothing is stored twice; undoing the fold gives the logits before it, exact to float32 rounding
(1e-6 for thresholds within 16 log-odds), and the policy decides on those.
"""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.errors import ArtifactError, DataError, PermanentError, one_line
from components.shared.contracts.listing import shown
from components.shared.data.decode import decode, resize
from components.shared.models.backbone import pool_tokens
from components.shared.models.classifier import Classifier, Head, check_input_size, normalise
from components.shared.models.gate import Gate
from components.shared.models.loading import load_pretrained
from components.shared.policies.early_exit import EarlyExit
from components.shared.policies.logit_affine import LogitAffine, logit_affine_of
from components.shared.serving.answer import Answer, answer_of
from components.shared.serving.bundle import DOCUMENT, GATE, MODEL, Bundle, stock_order
from components.shared.serving.explanation import Explanation, explain
from components.shared.stats.metrics import Floats
from components.shared.training.launch.device import device_type
from components.shared.vision.arithmetic import single_precision
from components.shared.vision.reference_image import reference_image

# Largest difference of a logit, relative where it exceeds 1: a hundred times what another order of
# float32 sums explains.
_TOLERANCE = 1e-3


class Network(NamedTuple):
    """The parts of a bundle's model, in eval mode on the CPU.

    Attributes:
        classifier: Backbone and head, as the bundle stores them.
        gate: The gate; None for a policy without one.
        fold: The calibrator and threshold that the head's weights contain; None where they are as
            trained.
        order: (C,) the stored logit of each class.
    """

    classifier: Classifier
    gate: Gate | None
    fold: LogitAffine | None
    order: tuple[int, ...]


class Predictor:
    """The model of a bundle, on the device of STREETVISION_DEVICE.

    It computes in exact fp32 on every device, because the answers must be those of the export.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Load the model of the bundle.

        Raises:
            ArtifactError: A file of the model is refused (`load_pretrained`), its weights are not
                all there, or with other versions of the libraries its answers are others.
            ConfigError: The device of STREETVISION_DEVICE is not there.
        """
        self._bundle, self._device = bundle, torch.device(device_type())
        self._spec = bundle.spec
        try:
            network = load_network(bundle)
            self._classifier = network.classifier.to(self._device)
            self._gate = network.gate
            if self._gate is not None and self._gate.head is not None:
                self._gate = Gate(self._gate.head.to(self._device))
            self._fold, self._order = network.fold, list(network.order)
            self._check_reference()
        except (ArtifactError, DataError) as error:
            differences = bundle.version_differences()
            if not differences:
                raise
            raise ArtifactError(
                f"{one_line(error)}; a reason may be other versions: {differences}"
            ) from error

    def _check_reference(self) -> None:
        """Compare the answer to the reference image, where other versions may give another."""
        expected = self._bundle.reference_logits
        if expected is None or not self._bundle.version_differences():
            return

        found = self.logits(reference_image(self._spec.image_size))[0]
        if len(expected) != len(found):
            raise ArtifactError(
                f"{self._bundle.place(DOCUMENT)}: reference_logits has {len(expected)} numbers,"
                f" the model has {len(found)} classes"
            )

        error = np.abs(found - expected) / np.maximum(1, np.abs(expected))
        if not error.max() <= _TOLERANCE:  # also for NaN
            raise ArtifactError(
                f"{self._bundle.place(MODEL)}: the logits of the reference image differ by"
                f" {error.max():.3g} (> {_TOLERANCE}) from those at the export"
            )

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        """(S, S, 3) uint8 of an encoded image of any supported format, whatever its file is called.

        Raises ImageRejectedError where it cannot be decoded.
        """
        return resize(decode(data), self._spec.image_size)

    def inputs(
        self, pixels: npt.NDArray[np.uint8], *, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """Return the model's input for (B, S, S, 3) uint8: `normalise` with the bundle's values.

        It is on the CPU, where the same pixels give the same bits on every machine.
        """
        return normalise(torch.from_numpy(pixels), self._spec, first=first, last=last)

    def features(
        self, pixels: npt.NDArray[np.uint8], *, first: int = 0, last: int | None = None
    ) -> torch.Tensor:
        """Return features (B, 2h) of (B, S, S, 3) uint8; one batch.

        Of views number `first` to `last` they are (B, V, 2h).
        """
        inputs = self.inputs(pixels, first=first, last=last).to(self._device)
        with single_precision(self._device):
            return self._classifier.features(inputs)

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(B, C) logits before folding, classes in the policy's order, of (B, S, S, 3) uint8."""
        return self.scores(pixels)[0]

    def scores(
        self, pixels: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Return what the policy decides on, of (B, S, S, 3) uint8 and all views.

        Returns:
            (B, C) logits as `logits` returns them, and (B,) raw gate scores; None without a gate.
        """
        with torch.inference_mode():
            return self._outputs(self.features(pixels))

    def scores_by_stage(
        self, pixels: npt.NDArray[np.uint8]
    ) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]]:
        """Return the scores of the full image alone, then of all views; of one view, one entry.

        Of (B, S, S, 3) uint8; each entry is what `scores` returns.
        """
        with torch.inference_mode():
            features = self.features(pixels)
            stages = [features] if self._spec.views is None else [features[:, :1], features]
            return [self._outputs(stage) for stage in stages]

    def embedded(
        self, pixels: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Return features and scores of (B, S, S, 3) uint8 and all views; one batch.

        Returns:
            (B, 2h) features, of several views pooled as the head pools them, and what `scores`
            returns.
        """
        with torch.inference_mode():
            features = self.features(pixels)
            pooled = self._classifier.head.pooled(features).float().cpu().numpy()
            return pooled, *self._outputs(features)

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

    def explanation(self, pixels: npt.NDArray[np.uint8], views: int | None = None) -> Explanation:
        """Split the margin of one image of (S, S, 3) uint8 into parts of its tokens.

        The reference is the bundle's mean feature vector, zeros in bundles without one.

        Args:
            pixels: The image.
            views: Number of views that its answer used (`Answer.views`).
        """
        inputs = self.inputs(pixels[None].copy(), last=views).to(self._device)
        with torch.inference_mode():
            with single_precision(self._device):
                tokens = self._classifier.tokens(inputs)
            features = pool_tokens(self._classifier.backbone, tokens)
            logits, _ = self._outputs(features)
            return explain(self._bundle, self._classifier, tokens, logits, self._mean_features)

    @cached_property
    def _mean_features(self) -> Floats | None:
        """(2h,) float64 mean of the bundle's held-out images; None in bundles without them."""
        if not self._bundle.has_reference:
            return None
        features = self._bundle.drift_reference().features
        return np.asarray(features.astype(np.float64).mean(axis=0))

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
                f"{self._bundle.place(MODEL)}: the output is not finite; the weights are damaged"
            )

        answered, sets = policy.answers(logits, gate), policy.answer_sets(logits)
        probabilities = policy.probabilities(logits)
        return [
            answer_of(policy, members if answers else None, values, views)
            for answers, members, values in zip(answered, sets, probabilities, strict=True)
        ]

    def _outputs(
        self, features: torch.Tensor
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Logits before folding (B, C), and raw gate scores (B,) where the policy is a gate."""
        logits = self._classifier.head(features).double().cpu().numpy()[:, self._order]
        if self._fold is not None:
            logits = self._fold.inverse(logits)
        if self._gate is None:
            return logits, None

        scores = self._gate.scores(
            self._classifier.head.pooled(features),
            torch.from_numpy(logits.copy()).to(self._device),
        )

        return logits, scores.double().cpu().numpy()


def load_stock(directory: Path, where: str, n_classes: int) -> PreTrainedModel:
    """Return transformers' image classifier of a bundle, model/ or student/.

    Raises ArtifactError as `load_pretrained`, or where it has not `n_classes` labels.
    """
    model = load_pretrained(directory, where, classifies=True)
    n_labels = int(model.config.num_labels)
    if n_labels != n_classes:
        raise ArtifactError(
            f"{where}: the model has {n_labels} labels, the policy {n_classes} classes"
        )
    return model


def load_network(bundle: Bundle) -> Network:
    """Return the parts of a bundle's model.

    Raises:
        ArtifactError: A file of the model is refused (`load_pretrained`), or its weights are not
            all there.
    """
    classifier, policy = _classifier(bundle), bundle.policy
    order = list(range(len(policy.class_names)))
    if bundle.stock:
        order = np.argsort(stock_order(policy.outcomes)).tolist()
    return Network(
        classifier,
        _gate(bundle, classifier),
        logit_affine_of(policy) if bundle.spec.views is None else None,
        tuple(order),
    )


def _classifier(bundle: Bundle) -> Classifier:
    directory, where, spec = bundle.path / MODEL, bundle.place(MODEL), bundle.spec
    if not bundle.stock:
        classifier = Classifier.load(directory, where=where)
    else:
        # In parts, so that a gate sees the features that the head sees.
        model = load_stock(directory, where, len(spec.class_names))
        head = Head(model.classifier.in_features, model.classifier.out_features)
        head.linear.load_state_dict(model.classifier.state_dict())
        classifier = Classifier(model.base_model, head, spec).eval()

    found = classifier.backbone.config.model_type
    if found != spec.backbone_type or classifier.spec.class_names != spec.class_names:
        raise ArtifactError(
            f"{where}: is a {found!r} with the classes {shown(classifier.spec.class_names)};"
            f" policy.json and preprocessing.json describe a {shown(spec.backbone_type)} with"
            f" {shown(spec.class_names)}"
        )
    check_input_size(spec, classifier.backbone, where, error=ArtifactError)

    return classifier


def _gate(bundle: Bundle, classifier: Classifier) -> Gate | None:
    if bundle.policy.kind != "gate":
        return None
    return Gate.load(
        bundle.path / GATE,
        n_features=classifier.head.linear.in_features,
        where=bundle.place(GATE),
    )
