"""Options of the extended pre-training of a backbone on street scenes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import (
    BackboneLoopConfig,
    ComputeConfig,
    LoopConfig,
    StepsLaunchConfig,
)

# Peak rates and the batches that they are for: of ExPLoRA with DINOv2's objective, and of MAE.
_DINO_RATE, _DINO_BATCH = 1e-3, 1024
_MAE_RATE, _MAE_BATCH = 1.5e-4, 256


@dataclass(frozen=True, kw_only=True)
class PretrainExploraConfig(StepsLaunchConfig, BackboneLoopConfig):
    """Hyper-parameters of extended pre-training: trained weights (ExPLoRA) and objective."""

    # The bare names mean the training of the classifier and the gate.
    QUALIFIED = (
        frozenset(LoopConfig.__dataclass_fields__)
        - {"seed"}
        - set(ComputeConfig.__dataclass_fields__)
    )

    explora_objective: str = option(
        "dino",
        "Objective of extended pre-training: dino, self-distillation; mae, masked autoencoding (not"
        " for DINOv3).",
        choices=("dino", "mae"),
    )
    use_labeled_data: bool = option(
        False,
        "Extended pre-training also learns TRAIN's labels, a separate input.",
    )
    explora_rank: int = option(
        64,
        "ExPLoRA: rank of LoRA on queries and values of all blocks but the unfrozen.",
        ge=1,
        le=4096,
    )
    explora_alpha: float = option(
        64.0,
        "ExPLoRA: LoRA is scaled by alpha / rank (published, for 150,000 steps: 1 / 64).",
        gt=0,
        le=1e6,
    )
    explora_unfrozen_blocks: int = option(
        1, "ExPLoRA: last blocks that are trained in full.", ge=1, le=1000
    )
    learning_rate: float = adjusted(
        LoopConfig,
        "learning_rate",
        default=None,
        help="Peak learning rate of AdamW; auto: dino, 1e-3 sqrt(global_batch_size / 1024); mae,"
        " 1.5e-4 global_batch_size / 256.",
        unset="auto",
    )
    global_batch_size: int = adjusted(LoopConfig, "global_batch_size", ge=2)
    weight_decay: float = adjusted(LoopConfig, "weight_decay", default=0.04)
    gradient_clip: float | None = adjusted(LoopConfig, "gradient_clip", default=3.0)
    ema_decay: float | None = adjusted(
        LoopConfig,
        "ema_decay",
        default=0.992,
        help="EMA decay of the teacher's weights, which are exported; none: the student's weights.",
    )
    explora_crop_size: int = option(
        224,
        "Side of the training crops, pixels; at most image_size. The small crops of dino have 98 /"
        " 224 of it.",
        ge=2,
        le=2048,
    )
    explora_centering: str = option(
        "sinkhorn",
        "dino: centering that prevents collapse: Sinkhorn-Knopp over the batch, or a running mean.",
        choices=("sinkhorn", "center"),
    )
    explora_prototypes: int = option(
        1024,
        "dino: number of prototypes, the classes of the self-distillation loss.",
        ge=2,
        le=1_000_000,
    )
    explora_head_width: int = option(
        1024, "dino: hidden width of the projection head.", ge=8, le=65_536
    )
    explora_local_crops: int = option(
        8, "dino: small crops per image, besides the two large ones.", ge=0, le=64
    )
    explora_teacher_temperature: float = option(
        0.07,
        "dino: softmax temperature of the teacher, rising from 0.04 during warm-up; the student has"
        " 0.1.",
        gt=0,
        le=0.1,
    )
    explora_ibot_weight: float = option(
        1.0, "dino: weight of the iBOT loss at masked patches.", ge=0, le=1e3
    )
    explora_koleo_weight: float = option(
        0.1, "dino: weight of the KoLeo loss, which spreads features.", ge=0, le=1e3
    )
    explora_mask_ratio: float = option(
        0.75, "mae: fraction of patches that are masked and reconstructed.", gt=0, lt=1
    )
    explora_decoder_width: int = option(
        192, "mae: width of the decoder's two blocks; a multiple of 32.", ge=32, le=8192
    )

    def automatic(self) -> Mapping[str, Any]:
        """The published learning rates, by their rules for other sizes of a batch."""
        size = self.global_batch_size
        if self.explora_objective == "dino":
            rate = _DINO_RATE * math.sqrt(size / _DINO_BATCH)
        else:
            rate = _MAE_RATE * size / _MAE_BATCH
        return {"learning_rate": self.learning_rate or rate}

    def check(self) -> list[str]:
        """The decoder's attention heads are 32 wide."""
        problems, width = super().check(), self.explora_decoder_width
        if width % 32:
            problems.append(f"explora_decoder_width={width} must be a multiple of 32")
        return problems
