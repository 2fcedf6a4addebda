"""Which network learns by self-distillation: the backbone and a head of prototypes for CLS and
patch tokens.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from components.shared.models.backbone import n_prefix_tokens, tokens_of

_BOTTLENECK = 256


class PrototypeHead(nn.Module):
    """(..., D) features -> (..., K) cosines with K prototypes, after three layers (DINO's head).

    Prototypes are normalised (weight normalisation with a fixed norm), so that none can win by its
    length.
    """

    def __init__(self, n_features: int, width: int, n_prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, _BOTTLENECK),
        )
        self.prototypes = nn.Parameter(torch.empty(n_prototypes, _BOTTLENECK))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(
                    layer.bias
                )  # else the start would be the same direction for every image

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Cosines in [-1, 1]."""
        return F.linear(
            F.normalize(self.layers(features), dim=-1), F.normalize(self.prototypes, dim=1)
        )


class Student(nn.Module):
    """Backbone and head; also the teacher's form. `centres` (2, K): running means of CLS and patch
    logits.

    classes: the map from CLS features to labels, of as many outputs as there are; none learns none.
    """

    centres: torch.Tensor

    def __init__(
        self, backbone: PreTrainedModel, head: PrototypeHead, classes: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.classes = backbone, head, classes
        self.n_prefix = n_prefix_tokens(backbone)
        self.register_buffer("centres", torch.zeros(2, len(head.prototypes)))

    def train(self, mode: bool = True) -> "Student":
        """Nothing in a backbone is random while it learns: its own drop-outs would depend on the
        process.
        """
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self, large: torch.Tensor, small: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Large (n, 3, S, S) with masks (n, N) bool, small (m, 3, s, s) -> CLS features (n, D),
        logits of the classes (n, C) or None, CLS logits (n, K), logits of masked patches (M, K) in
        the order of `masks`, CLS logits of the small ones (m, K)."""
        tokens = masked_tokens(self.backbone, large, masks)
        cls, patches = tokens[:, 0], tokens[:, self.n_prefix :][masks]
        small_cls = tokens_of(self.backbone, small)[:, 0] if len(small) else cls[:0]
        logits = self.head(torch.cat([cls, patches, small_cls]))
        named = None if self.classes is None else self.classes(cls)
        return cls, named, *logits.split([len(cls), len(patches), len(small_cls)])

    def teach(self, large: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unmasked images (n, 3, S, S) -> CLS logits (n, K), logits (M, K) of the patches in
        `masks` (n, N).
        """
        tokens = tokens_of(self.backbone, large)
        cls, patches = tokens[:, 0], tokens[:, self.n_prefix :][masks]
        logits = self.head(torch.cat([cls, patches]))
        return logits[: len(cls)], logits[len(cls) :]


def masked_tokens(
    backbone: PreTrainedModel, pixels: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """`tokens_of` images of which the patches in `masks` (n, N) are hidden from the backbone.

    ViT has no mask token: there a hidden patch shows the mean colour.
    """
    if backbone.config.model_type == "vit":
        return tokens_of(backbone, _blanked(pixels, masks))
    return tokens_of(backbone, pixels, bool_masked_pos=masks)


def _blanked(pixels: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    side = round(masks.shape[1] ** 0.5)
    shown = (~masks).view(-1, 1, side, side).to(pixels.dtype)
    return pixels * F.interpolate(shown, size=pixels.shape[-2:], mode="nearest")
