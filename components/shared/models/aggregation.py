"""What does a set of views say about the image? From margins of views to the margin of the image.

Everything works on the margin, the positive class's logit minus the other's: the largest
probability per class over views would belong to different views and would not sum to one, and
ranking views by confidence picks background.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from components.shared.vision.view_spec import ViewSpec

_WIDTH = 128  # as published
_TINY = 1e-4  # below it the first two terms of the series are exact in float32


class Attention(nn.Module):
    """Gated attention over views (Ilse et al. 2018, arXiv 1802.04712, eq. 9): (B, V, F) -> (B, V),
    rows sum to 1.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_features, _WIDTH)
        self.gate = nn.Linear(n_features, _WIDTH)
        # Without a bias: a softmax does not see it, and a parameter without gradient would still be
        # decayed.
        self.out = nn.Linear(_WIDTH, 1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Weights of the views."""
        scores = self.out(torch.tanh(self.hidden(features)) * torch.sigmoid(self.gate(features)))
        weights: torch.Tensor = scores.squeeze(-1).float().softmax(dim=1)
        return weights


def aggregate(
    margins: torch.Tensor, views: ViewSpec, attention: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, V) float32 margins -> (B,) margins of the images; of one view it is that view's own.

    `attention` (B, V) are the weights where the aggregation is "attention".
    """
    if views.aggregation == "max":
        return margins.amax(dim=1)
    if views.aggregation == "topk_mean":
        return margins.topk(_k(margins, views), dim=1).values.mean(dim=1)
    if views.aggregation == "lse":
        # Pinheiro & Collobert 2015 (arXiv 1411.6228, eq. 6): between the mean (r -> 0) and the
        # maximum (r -> inf).
        r = views.sharpness
        return ((r * margins).logsumexp(dim=1) - math.log(margins.shape[1])) / r
    if views.aggregation == "noisy_or":
        return _noisy_or(margins)
    return (_given(attention) * margins).sum(dim=1)


def shares(
    margins: torch.Tensor, views: ViewSpec, attention: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, V), rows sum to 1: how much of a change of the image's margin comes from each view (its
    gradient).
    """
    if views.aggregation in ("max", "topk_mean"):
        k = _k(margins, views)
        return torch.zeros_like(margins).scatter(1, margins.topk(k, dim=1).indices, 1 / k)
    if views.aggregation == "lse":
        return (views.sharpness * margins).softmax(dim=1)
    if views.aggregation == "noisy_or":
        return F.logsigmoid(margins).softmax(dim=1)
    return _given(attention)


def neutral_margin(views: ViewSpec) -> float:
    """The margin of every view at which the image's is 0: where training starts."""
    if views.aggregation != "noisy_or":
        return 0.0
    probability = -math.expm1(-math.log(2) / views.count)
    return math.log(probability / (1 - probability))


def _noisy_or(margins: torch.Tensor) -> torch.Tensor:
    """Log-odds of 1 - prod(1 - p): log(exp(s) - 1) with s = sum of softplus(margin), finite for any
    margins.
    """
    # log(softplus(m)) is m where the exponential is all that is left of softplus.
    far = margins < -15
    log_terms = torch.where(far, margins, F.softplus(margins.masked_fill(far, 0.0)).log())
    log_s = log_terms.logsumexp(dim=1)
    s = log_s.exp()
    small = s < _TINY
    safe = torch.where(small, torch.ones_like(s), s)
    return torch.where(small, log_s + s / 2, safe + (-torch.expm1(-safe)).log())


def _k(margins: torch.Tensor, views: ViewSpec) -> int:
    return 1 if views.aggregation == "max" else min(views.top_k, margins.shape[1])


def _given(attention: torch.Tensor | None) -> torch.Tensor:
    if attention is None:
        raise ValueError("aggregation='attention' needs the weights of the views")
    return attention
