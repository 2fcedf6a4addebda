"""The exact split of a margin into a part of the CLS token and a part of every patch token.

A linear head on [CLS; mean patch token] makes a margin a sum over tokens, which needs no gradient:

    margin = w_cls . (cls - cls_ref) + (1/P) sum_p w_patch . (token_p - patch_ref) + constant

The reference is the mean feature vector of held-out images. It moves what all images have in common
from the tokens into the constant, so that the sign of a part says how the token differs from the
usual one. These are the Shapley values of a linear model (Lundberg & Lee 2017, arXiv 1705.07874,
corollary 1). Without a reference the constant is the head's bias.

The sum is exact; its meaning has limits. A token at the end of a transformer has seen all others,
and the CLS part has no place in the image.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from components.shared.models.backbone import pool_tokens, split_tokens
from components.shared.models.classifier import BagHead, Classifier, MulticlassBagHead

# Of two classes, a bag's logits are minus and plus half the difference of a view's.
_HALVES = ((0.5, -0.5), (-0.5, 0.5))


@dataclass(frozen=True)
class LogitMap:
    """How the head's logits become the explained ones: scale * logits[order] + offset, (C,) each.

    The margin of a class is then its log-odds against all others.
    """

    scale: torch.Tensor
    offset: torch.Tensor
    order: torch.Tensor

    @classmethod
    def identity(cls, n_classes: int) -> "LogitMap":
        """Return the map that changes nothing."""
        ones = torch.ones(n_classes, dtype=torch.float64)
        return cls(ones, torch.zeros_like(ones), torch.arange(n_classes))


class MarginParts(NamedTuple):
    """Margins of B images as sums of parts.

    Attributes:
        cls: (B,) float64 parts of the CLS token.
        patches: (B, H, W) float64 parts of the patch tokens, as they lie in the view.
        constant: (B,) float64, what no token of the image decides.
        view: (B,) int64 number of the view that is split, of a model of several; else 0.
        weight: (B,) float32 weight of that view in the image's margin, at most 1.
    """

    cls: torch.Tensor
    patches: torch.Tensor
    constant: torch.Tensor
    view: torch.Tensor
    weight: torch.Tensor

    @property
    def margin(self) -> torch.Tensor:
        """(B,) float64, the sum of all parts."""
        return self.cls + self.patches.sum(dim=(1, 2)) + self.constant


def split_margins(
    classifier: Classifier,
    tokens: torch.Tensor,
    k: torch.Tensor,
    *,
    logit_map: LogitMap | None = None,
    against: torch.Tensor | None = None,
    reference: torch.Tensor | None = None,
) -> MarginParts:
    """Split the margin of one class of each image.

    Of several views, the one with the largest weight in the image's margin is split, and of equal
    weights the one with the larger margin: its own margin is then the sum.

    With more than two classes the log-odds are not linear in the logits z, but equal to
    z_k - sum_j p_j z_j - H(p), where p is the softmax over the other classes and H its entropy. The
    entropy is part of the constant; the other terms are linear.

    Args:
        classifier: The classifier.
        tokens: (B, T, h), or (B, V, T, h) of views, as `Classifier.tokens` returns them.
        k: (B,) int64 the class whose margin is split.
        logit_map: From the head's logits to the explained ones; None: the head's own.
        against: (B,) int64 the one class that k is compared with; None: all others.
        reference: (2h,) mean features of held-out images; None: zeros.
    """
    tokens, view, weight = _decisive_view(classifier, tokens, k)
    linear = classifier.head.linear
    map_ = logit_map or LogitMap.identity(linear.out_features)
    matrix, bias = _explained_head(classifier, map_)
    features = pool_tokens(classifier.backbone, tokens).double()

    own = torch.nn.functional.one_hot(k, len(bias)).bool()
    others = (features @ matrix.T + bias).masked_fill(own, -torch.inf)
    if against is None:
        share = others.softmax(dim=1)
        entropy = torch.special.entr(share).sum(dim=1)
    else:
        share = torch.nn.functional.one_hot(against, len(bias)).double()
        entropy = torch.zeros(len(k), dtype=torch.float64, device=tokens.device)
    contrast = own.double() - share

    direction = contrast @ matrix
    constant = contrast @ bias - entropy
    origin = torch.zeros_like(features[0]) if reference is None else reference.to(features)
    cls, patches = _parts(classifier, tokens, direction, origin)

    return MarginParts(cls, patches, constant + direction @ origin, view, weight)


def _parts(
    classifier: Classifier, tokens: torch.Tensor, direction: torch.Tensor, origin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the parts (B,) of CLS and (B, H, W) of patches, from tokens (B, T, h)."""
    width = tokens.shape[-1]
    cls, patches = split_tokens(classifier.backbone, tokens.double())
    of_cls = ((cls - origin[:width]) * direction[:, :width]).sum(dim=1)
    of_patches = ((patches - origin[width:]) @ direction[:, width:, None]).squeeze(-1)

    spec = classifier.spec
    side = spec.image_size if spec.views is None else spec.views.size
    n = side // int(classifier.backbone.config.patch_size)

    return of_cls, of_patches.div(patches.shape[1]).view(len(tokens), n, n)


def _explained_head(
    classifier: Classifier, logit_map: LogitMap
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (C, 2h) and bias (C,) in float64 of the head with the map in it."""
    linear = classifier.head.linear
    weight, bias = linear.weight.detach().double(), linear.bias.detach().double()
    if isinstance(classifier.head, BagHead):
        halves = torch.tensor(_HALVES, dtype=torch.float64, device=weight.device)
        weight, bias = halves @ weight, halves @ bias

    order = logit_map.order.to(weight.device)
    scale, offset = logit_map.scale.to(weight), logit_map.offset.to(weight)
    return weight[order] * scale[:, None], bias[order] * scale + offset


def _decisive_view(
    classifier: Classifier, tokens: torch.Tensor, k: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens (B, T, h) of the decisive view, its number (B,) and its weight (B,)."""
    head, rows = classifier.head, torch.arange(len(tokens), device=tokens.device)
    if not isinstance(head, BagHead | MulticlassBagHead):
        return tokens, torch.zeros_like(rows), torch.ones(len(rows), device=tokens.device)

    features = pool_tokens(classifier.backbone, tokens)
    margins, weights = head.margins_of(features, k), head.weights(features, k)
    largest = weights == weights.amax(dim=1, keepdim=True)
    view = margins.masked_fill(~largest, -torch.inf).argmax(dim=1)

    return tokens[rows, view], view, weights[rows, view]
