"""Options of phase 3: training of the gate."""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.contracts.options import RecipeConfig


@dataclass(frozen=True, kw_only=True)
class TrainGateConfig(RecipeConfig):
    """Hyper-parameters of phase 3. The backbone stays as trained; heads learn on its cached
    features.
    """

    gate_loss: str = option(
        "selectivenet",
        "selectivenet: a selection head beside the prediction; gatekeeper: confidence itself, made"
        " unsure where wrong.",
        choices=("selectivenet", "gatekeeper"),
    )
    gate_coverage: float = option(
        0.8, "SelectiveNet: share of images the gate is trained to accept.", gt=0, le=1
    )
    gatekeeper_weight: float = option(
        0.5,
        "Gatekeeper: weight of fitting right answers against unlearning wrong ones; low defers"
        " better.",
        ge=0,
        le=1,
    )
    gate_epochs: int = option(
        20, "Passes of the gate over TRAIN; early stopping may end sooner.", ge=1
    )
    gate_learning_rate: float = option(1e-3, "Peak rate of AdamW for the gate's heads.", gt=0, lt=1)
    conformal_weight: float = option(
        0.0,
        "Weight of conformal risk training: the smoothed false positive rate at the conformal"
        " threshold.",
        ge=0,
    )
    conformal_alpha: float = option(
        0.1,
        "False negative rate of that threshold; half of a batch needs 1 / alpha positives.",
        gt=0,
        lt=1,
    )
