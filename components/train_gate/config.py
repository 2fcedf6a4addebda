"""How does stage 1 learn when not to answer?"""

from dataclasses import dataclass

from components.shared.config import option
from components.shared.training.config import CheckpointConfig


@dataclass(frozen=True, kw_only=True)
class TrainGateConfig(CheckpointConfig):
    """Hyper-parameters of phase 3. The backbone stays as trained; heads learn on its cached features."""

    gate_loss: str = option(
        "selectivenet",
        "selectivenet: a selection head beside the prediction; gatekeeper: confidence itself, made unsure where wrong.",
        choices=("selectivenet", "gatekeeper"),
    )
    gate_coverage: float = option(0.8, "SelectiveNet: share of images the gate is trained to accept.", gt=0, le=1)
    gatekeeper_share: float = option(
        0.5, "Gatekeeper: weight of fitting right answers against unlearning wrong ones; low defers better.", ge=0, le=1
    )
    gate_epochs: int = option(20, "Passes of the gate over TRAIN; early stopping may end sooner.", ge=1)
    gate_learning_rate: float = option(1e-3, "Peak rate of AdamW for the gate's heads.", gt=0, lt=1)
    global_batch_size: int = option(64, "Samples per optimiser step over all processes.", ge=1)
    weight_decay: float = option(0.01, "AdamW weight decay of matrices.", ge=0, lt=1)
    warmup_share: float = option(0.1, "Share of all steps with linearly rising rate, then cosine decay.", ge=0, lt=1)
    dropout: float = option(0.3, "Dropout on the head's input.", ge=0, lt=1)
    conformal_weight: float = option(
        0.0, "Weight of conformal risk training: the smoothed false positive rate at the conformal threshold.", ge=0
    )
    conformal_alpha: float = option(
        0.1, "False negative rate of that threshold; half of a batch needs 1 / alpha positives.", gt=0, lt=1
    )
    ema_decay: float = option(0.99, "Decay of the weight average that is evaluated and kept; 0: off.", ge=0, lt=1)
    gradient_clip: float = option(1.0, "Largest global gradient norm; 0: no clipping.", ge=0)
    patience: int = option(10, "Epochs without improvement before training stops; 0: never.", ge=0)
    augmentation: str = option(
        "moderate", "Distortions of training images.", choices=("none", "moderate", "aggressive")
    )
    n_views: int = option(4, "Frozen mode: cached feature sets per image (the first undistorted).", ge=1, le=64)
    n_processes: int = option(0, "Processes of torchrun; 0: one per visible GPU, one without GPU.", ge=0)
    positive_class: str = option("Roadwork", "The class that P(positive) and the margin refer to.")
    seed: int = option(0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0)
