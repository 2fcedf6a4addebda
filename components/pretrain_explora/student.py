"""The network of self-distillation: a backbone with prototypes for CLS and patch tokens."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from components.shared.models.backbone import n_prefix_tokens, tokens_of

_BOTTLENECK = 256  # features before the prototypes, as in DINO


class StudentOutputs(NamedTuple):
    """The student's outputs for 2n large and m small crops.

    Attributes:
        cls: (2n, D) CLS features of the large crops.
        cls_logits: (2n, K) logits of these.
        patch_logits: (M, K) logits of the M masked patches, in the order of the masks.
        small_cls_logits: (m, K) logits of the small crops' CLS features.
        class_logits: (2n, C) logits of the labels' classes for the large crops; None without
            labels.
    """

    cls: torch.Tensor
    cls_logits: torch.Tensor
    patch_logits: torch.Tensor
    small_cls_logits: torch.Tensor
    class_logits: torch.Tensor | None


class PrototypeHead(nn.Module):
    """DINO's head: features (..., D) to cosines (..., K) with K prototypes, after three layers.

    Prototypes are normalised (weight normalisation with a fixed norm), so that none dominates by
    its length.
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
                # With torch's random biases, all images would start in about the same direction.
                nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return cosines (..., K) in [-1, 1]."""
        return F.linear(
            F.normalize(self.layers(features), dim=-1), F.normalize(self.prototypes, dim=1)
        )


class Student(nn.Module):
    """Backbone, prototype head and, with labels, a class head; the teacher has the same form.

    `centers` (2, K) are running means of the teacher's CLS and patch logits.
    """

    centers: torch.Tensor

    def __init__(
        self, backbone: PreTrainedModel, head: PrototypeHead, class_head: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.class_head = backbone, head, class_head
        self.n_prefix = n_prefix_tokens(backbone)
        self.register_buffer("centers", torch.zeros(2, len(head.prototypes)))

    def train(self, mode: bool = True) -> "Student":
        """Set the training mode of all but the backbone, whose dropout stays off.

        Dropout inside the backbone would depend on the process.
        """
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self,
        large: torch.Tensor,
        small: torch.Tensor,
        masks: torch.Tensor,
        places: torch.Tensor,
    ) -> StudentOutputs:
        """Return the outputs for large crops with masked patches, and for small crops.

        Args:
            large: (2n, 3, S, S) normalised large crops.
            small: (m, 3, s, s) normalised small crops.
            masks: (2n, N) bool, the hidden patches of the large crops.
            places: (M,) int64, the numbers of the M hidden ones among all 2n N patches.
        """
        tokens = masked_tokens(self.backbone, large, masks)
        cls, patches = tokens[:, 0], tokens[:, self.n_prefix :].flatten(0, 1)[places]
        small_cls = tokens_of(self.backbone, small)[:, 0] if len(small) else cls[:0]

        logits = self.head(torch.cat([cls, patches, small_cls]))
        class_logits = None if self.class_head is None else self.class_head(cls)
        cls_logits, patch_logits, small_cls_logits = logits.split(
            [len(cls), len(patches), len(small_cls)]
        )

        return StudentOutputs(cls, cls_logits, patch_logits, small_cls_logits, class_logits)

    def teacher_logits(
        self, large: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of a teacher, from which nothing is hidden.

        Args:
            large: (n, 3, S, S) normalised images.
            places: (M,) int64, the numbers of the patches whose logits are returned, among all
                n N.

        Returns:
            CLS logits (n, K), and patch logits (M, K).
        """
        tokens = tokens_of(self.backbone, large)
        cls, patches = tokens[:, 0], tokens[:, self.n_prefix :].flatten(0, 1)[places]
        logits = self.head(torch.cat([cls, patches]))
        return logits[: len(cls)], logits[len(cls) :]


def masked_tokens(
    backbone: PreTrainedModel, pixels: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """Return `tokens_of` images whose patches in `masks` (n, N) are hidden from the backbone.

    ViT has no mask token: a hidden patch has the mean colour instead, which is 0.
    """
    if backbone.config.model_type == "vit":
        return tokens_of(backbone, _blank(pixels, masks))
    return tokens_of(backbone, pixels, bool_masked_pos=masks)


def _blank(pixels: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return pixels (n, 3, S, S) with zeros in the patches of `masks` (n, N)."""
    side = round(masks.shape[1] ** 0.5)
    shown = (~masks).view(-1, 1, side, side).to(pixels.dtype)
    return pixels * F.interpolate(shown, size=pixels.shape[-2:], mode="nearest")
