"""Options of phase 4: extended pre-training of a backbone on street scenes."""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.contracts.options import HALF_REFUSED, LaunchConfig


@dataclass(frozen=True, kw_only=True)
class PretrainExploraConfig(LaunchConfig):
    """Hyper-parameters of phase 4: what changes (ExPLoRA) and by which self-supervised
    objective.
    """

    explora_objective: str = option(
        "dino",
        "Objective of extended pre-training: dino, self-distillation; mae, masked autoencoding (not"
        " for DINOv3).",
        choices=("dino", "mae"),
    )
    use_labeled_data: bool = option(
        False,
        "Extended pre-training also learns TRAIN's labels, which it takes as an input of their"
        " own.",
    )
    explora_rank: int = option(
        64, "ExPLoRA: rank of LoRA on queries and values of all blocks but the unfrozen.", ge=1
    )
    explora_alpha: float = option(
        64.0, "ExPLoRA: LoRA is scaled by alpha / rank (published: 1 / 64).", gt=0
    )
    explora_unfrozen_blocks: int = option(1, "ExPLoRA: last blocks that are trained in full.", ge=1)
    explora_epochs: int = option(20, "Passes of extended pre-training over TRAIN.", ge=1)
    explora_learning_rate: float = option(
        5e-4, "Peak rate of AdamW in extended pre-training.", gt=0, lt=1
    )
    explora_batch_size: int = option(
        64, "Images per optimiser step of extended pre-training.", ge=2
    )
    explora_weight_decay: float = option(
        0.04, "AdamW weight decay of matrices in extended pre-training.", ge=0, lt=1
    )
    explora_crop_size: int = option(
        224,
        "Side of the crops it learns from, pixels; at most image_size. dino's small ones have 98 /"
        " 224 of it.",
        ge=2,
    )
    explora_momentum: float = option(
        0.992, "Decay of the weight average that teaches and is kept.", ge=0, lt=1
    )
    explora_centering: str = option(
        "sinkhorn",
        "dino: what keeps the teacher from collapsing: Sinkhorn-Knopp over the batch, or a running"
        " centre.",
        choices=("sinkhorn", "center"),
    )
    explora_prototypes: int = option(
        1024, "dino: classes that student and teacher must agree on.", ge=2
    )
    explora_head_width: int = option(1024, "dino: hidden width of the projection head.", ge=8)
    explora_local_crops: int = option(
        8, "dino: small crops per image beside the two large ones.", ge=0
    )
    explora_teacher_temperature: float = option(
        0.07,
        "dino: sharpness of the teacher, from 0.04 during the warm-up; the student's is 0.1.",
        gt=0,
        le=0.1,
    )
    explora_ibot_weight: float = option(
        1.0, "dino: weight of predicting the teacher at masked patches.", ge=0
    )
    explora_koleo_weight: float = option(
        0.1, "dino: weight of spreading the images' features.", ge=0
    )
    explora_mask_ratio: float = option(
        0.75, "mae: share of patches that must be reconstructed.", gt=0, lt=1
    )
    explora_decoder_width: int = option(
        192, "mae: width of the decoder's two blocks; a multiple of 32.", ge=32
    )
    warmup_ratio: float = option(
        0.1, "Share of all steps with linearly rising rate, then cosine decay.", ge=0, lt=1
    )
    gradient_clip: float = option(1.0, "Largest global gradient norm; 0: no clipping.", ge=0)
    micro_batch_size: int = option(
        0, "Samples per forward pass and process; 0: the whole share. Halved on OOM.", ge=0
    )
    precision: str = option(
        "fp32", "fp32, or bf16 autocast where supported.", choices=("fp32", "bf16", "fp16")
    )
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )

    def check(self) -> list[str]:
        """fp16 is refused with its reason; the decoder's heads are 32 wide."""
        problems = [HALF_REFUSED] if self.precision == "fp16" else []
        width = self.explora_decoder_width
        return problems + (
            [f"explora_decoder_width={width} must be a multiple of 32"] if width % 32 else []
        )
