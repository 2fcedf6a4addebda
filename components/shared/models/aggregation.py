"""Aggregation of the margins of an image's views into the margin of the image.

All functions work on the margin, the positive class's logit minus the other's: the largest
probability per class over views would belong to different views and would not sum to one, and
ranking views by confidence selects background.

Own code, a few lines per method: libraries of multiple-instance learning bring whole training
frameworks, and none offers the views' weights that a gate needs.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from components.shared.models.linear import HeadLinear
from components.shared.vision.view_spec import ViewSpec

_WIDTH = 128  # hidden width of the attention, as published
_TINY = 1e-4  # below it, the first two terms of the series are exact in float32
# Below it, softplus(m) equals exp(m) in float32, and log(softplus(m)) equals m.
_EXPONENTIAL_BELOW = -15.0


class Attention(nn.Module):
    """Gated attention over views (Ilse et al. 2018, arXiv 1802.04712, eq. 9)."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.hidden = HeadLinear(n_features, _WIDTH)
        self.gate = HeadLinear(n_features, _WIDTH)
        # Without a bias: softmax is invariant to it, and weight decay would still change a
        # parameter that has no gradient.
        self.out = HeadLinear(_WIDTH, 1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the weights (B, V) of the views from features (B, V, F); rows sum to 1."""
        scores = self.out(torch.tanh(self.hidden(features)) * torch.sigmoid(self.gate(features)))
        weights: torch.Tensor = scores.squeeze(-1).softmax(dim=1)
        return weights


def aggregate(
    margins: torch.Tensor, views: ViewSpec, attention: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the margins (B,) of the images; of a single view it is that view's own.

    Args:
        margins: (B, V) float32 margins of the views.
        views: The specification with the aggregation.
        attention: (B, V) weights of the views, for the aggregation "attention".
    """
    if views.aggregation == "max":
        return margins.amax(dim=1)
    if views.aggregation == "topk_mean":
        return margins.topk(_n_averaged(margins, views), dim=1).values.mean(dim=1)

    if views.aggregation == "lse":
        # Pinheiro & Collobert 2015 (arXiv 1411.6228, eq. 6): between the mean (r -> 0) and the
        # maximum (r -> inf).
        r = views.sharpness
        return ((r * margins).logsumexp(dim=1) - math.log(margins.shape[1])) / r

    if views.aggregation == "noisy_or":
        return _noisy_or(margins)

    return (_required(attention) * margins).sum(dim=1)


def view_weights(
    margins: torch.Tensor, views: ViewSpec, attention: torch.Tensor | None = None
) -> torch.Tensor:
    """Return each view's weight (B, V) in its image's margin; rows sum to 1.

    The weights are the gradient of the image's margin with respect to the views' margins, scaled to
    sum to 1. Arguments are those of `aggregate`.
    """
    if views.aggregation in ("max", "topk_mean"):
        k = _n_averaged(margins, views)
        return torch.zeros_like(margins).scatter(1, margins.topk(k, dim=1).indices, 1 / k)
    if views.aggregation == "lse":
        return (views.sharpness * margins).softmax(dim=1)
    if views.aggregation == "noisy_or":
        return F.logsigmoid(margins).softmax(dim=1)
    return _required(attention)


def neutral_margin(views: ViewSpec) -> float:
    """Return the margin of every view at which the image's is 0, where training starts."""
    if views.aggregation != "noisy_or":
        return 0.0
    probability = -math.expm1(-math.log(2) / views.count)
    return math.log(probability / (1 - probability))


def _noisy_or(margins: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of 1 - prod(1 - p) over views, finite for any margins (B, V).

    They are log(exp(s) - 1) with s = sum of softplus(margin), computed from log s.
    """
    far = margins < _EXPONENTIAL_BELOW
    log_terms = torch.where(far, margins, F.softplus(margins.masked_fill(far, 0.0)).log())
    log_s = log_terms.logsumexp(dim=1)
    s = log_s.exp()

    # For small s, log(exp(s) - 1) = log s + s / 2 up to s^2 / 24. The branch that is not selected
    # must be finite too, or its gradient would be NaN.
    small = s < _TINY
    safe = torch.where(small, torch.ones_like(s), s)

    return torch.where(small, log_s + s / 2, safe + (-torch.expm1(-safe)).log())


def _n_averaged(margins: torch.Tensor, views: ViewSpec) -> int:
    return 1 if views.aggregation == "max" else min(views.top_k, margins.shape[1])


def _required(attention: torch.Tensor | None) -> torch.Tensor:
    if attention is None:
        raise ValueError("aggregation='attention' needs the weights of the views")
    return attention
