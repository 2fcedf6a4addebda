"""Options that the phases under torchrun share."""

from dataclasses import dataclass

from components.shared.contracts.config import Config, option

HALF_REFUSED = (
    "precision='fp16' is refused: DINO backbones overflow its range (65504); use fp32 or bf16"
)


@dataclass(frozen=True, kw_only=True)
class TorchrunConfig(Config):
    """How a phase's processes are started, and started again. It never changes the result."""

    n_processes: int = option(
        0, "Processes of torchrun; 0: one per visible GPU, one without GPU.", ge=0
    )
    max_restarts: int = option(
        3,
        "Restarts of torchrun inside the pod, all together, after failures that are not permanent;"
        " 0: none.",
        ge=0,
    )


@dataclass(frozen=True, kw_only=True)
class LaunchConfig(TorchrunConfig):
    """How a training phase is run: processes, restarts and checkpoints. It never changes the
    result.
    """

    checkpoint_seconds: int = option(600, "Longest time between two checkpoints, in seconds.", ge=1)
    checkpoint_steps: int = option(
        0, "Most optimiser steps between two checkpoints; 0: only time counts.", ge=0
    )
    require_durable: bool = option(
        False,
        "Stop where a checkpoint cannot be stored safely, instead of training on with a warning.",
    )


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(LaunchConfig):
    """What a phase that trains a classifier's heads on labelled images has in common with the
    others.
    """

    global_batch_size: int = option(64, "Samples per optimiser step over all processes.", ge=1)
    weight_decay: float = option(0.01, "AdamW weight decay of matrices.", ge=0, lt=1)
    warmup_ratio: float = option(
        0.1, "Share of all steps with linearly rising rate, then cosine decay.", ge=0, lt=1
    )
    dropout: float = option(0.3, "Dropout on the head's input.", ge=0, lt=1)
    ema_decay: float = option(
        0.99, "Decay of the weight average that is evaluated and kept; 0: off.", ge=0, lt=1
    )
    gradient_clip: float = option(1.0, "Largest global gradient norm; 0: no clipping.", ge=0)
    patience: int = option(10, "Epochs without improvement before training stops; 0: never.", ge=0)
    augmentation: str = option(
        "moderate", "Distortions of training images.", choices=("none", "moderate", "aggressive")
    )
    n_cached_augmentations: int = option(
        4, "Frozen mode: cached feature sets per image (the first undistorted).", ge=1, le=64
    )
    positive_class: str = option("Roadwork", "The class that P(positive) and the margin refer to.")
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )
