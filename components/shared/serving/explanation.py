"""Why an answer is what it is: the parts of its margin, as numbers."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from components.shared.data.margin_parts import cls_share, strength
from components.shared.models.classifier import Classifier
from components.shared.models.explanation import LogitMap, split_margins
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import Policy
from components.shared.serving.bundle import Bundle, stock_order
from components.shared.stats.metrics import Floats
from components.shared.vision.view_spec import view_box


@dataclass(frozen=True)
class Explanation:
    """The margin of one outcome of one image: cls + patches.sum() + constant.

    Attributes:
        outcome: The outcome that positive parts speak for: the positive class of a binary task, the
            decided class of a multiclass one.
        cls: The part of the CLS token, which has no place in the image.
        patches: (H, W) float64, the parts of the patches where they lie in the view; a mirrored
            view's are turned back.
        constant: What no token of the image decides.
        from_threshold: Whether the margin is calibrated log-odds less the threshold, so that above
            0 is the positive class; otherwise it is log-odds: calibrated where the calibrator is
            linear, else before calibration.
        box: (left, top, side) of the view, as fractions of the image's side.
        view: Number of the view, of a model of several; 0 is the full image. None of one view.
        view_weight: The view's weight in the image's margin.
    """

    outcome: str
    cls: float
    patches: Floats
    constant: float
    from_threshold: bool
    box: tuple[float, float, float]
    view: int | None
    view_weight: float

    @property
    def margin(self) -> float:
        """The sum of the parts."""
        return self.cls + float(self.patches.sum()) + self.constant

    @property
    def cls_share(self) -> float:
        """The CLS token's share of the evidence, 0 to 1: |cls| / (|cls| + |sum of patches|)."""
        return cls_share(self.cls, float(self.patches.sum()))

    @property
    def strength(self) -> float:
        """The patches' weight in the evidence, 0 to 1, with which their colours are drawn."""
        return strength(self.cls, self.patches)


def explain(
    bundle: Bundle,
    classifier: Classifier,
    tokens: torch.Tensor,
    logits: Floats,
    reference: Floats | None,
) -> Explanation:
    """Split the margin of one image.

    Args:
        bundle: The bundle.
        classifier: Its model.
        tokens: (1, T, h), or (1, V, T, h) of the views that were used.
        logits: (1, C) before folding, in the policy's order, of the same views.
        reference: (2h,) mean features of held-out images; None: zeros.
    """
    policy, spec = bundle.policy, bundle.spec
    positive = policy.outcomes.positive
    k = int(policy.decision(logits)[0]) if positive is None else policy.outcomes.positive_index
    parts = split_margins(
        classifier,
        tokens,
        torch.tensor([k], device=tokens.device),
        logit_map=_logit_map(bundle),
        reference=None if reference is None else torch.from_numpy(reference).to(tokens.device),
    )

    view = int(parts.view[0])
    left, top, side, mirrored = view_box(spec.image_size, spec.views, view)
    patches = parts.patches[0].cpu().numpy()
    scale = spec.image_size
    return Explanation(
        outcome=policy.outcomes.names[k if positive is None else 1],
        cls=float(parts.cls[0]),
        patches=patches[:, ::-1].copy() if mirrored else patches,
        constant=float(parts.constant[0]),
        from_threshold=positive is not None and logit_affine_of(policy).decides,
        box=(left / scale, top / scale, side / scale),
        view=None if spec.views is None else view,
        view_weight=float(parts.weight[0]),
    )


def _logit_map(bundle: Bundle) -> LogitMap:
    """Return the map from the stored head's logits to those whose margin the policy reads."""
    policy: Policy = bundle.policy
    identity = LogitMap.identity(len(policy.class_names))
    if bundle.stock:
        order = np.argsort(stock_order(policy.outcomes))
        return dataclasses.replace(identity, order=torch.from_numpy(order))
    # Weights of one view hold calibrator and threshold; a multiclass bag's logits are log-odds of
    # its views, of which only the decided class's is split.
    if bundle.spec.views is None or policy.outcomes.positive is None:
        return identity

    affine = logit_affine_of(policy)
    scale, offset = torch.from_numpy(affine.scale), torch.from_numpy(affine.offset)
    return dataclasses.replace(identity, scale=scale, offset=offset)
