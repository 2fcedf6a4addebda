"""Options of the training of the gate."""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.contracts.options import RecipeConfig


@dataclass(frozen=True, kw_only=True)
class TrainGateConfig(RecipeConfig):
    """Hyper-parameters of the gate; its heads learn on cached features of the trained backbone."""

    QUALIFIED = frozenset({"epochs", "learning_rate"})

    gate_loss: str = option(
        "selectivenet",
        "selectivenet: a selection head beside the prediction head; gatekeeper: the prediction head"
        " itself, trained to low confidence on its errors.",
        choices=("selectivenet", "gatekeeper"),
    )
    gate_coverage: float = option(
        0.8, "selectivenet: fraction of images that the gate is trained to accept.", gt=0, le=1
    )
    gatekeeper_weight: float = option(
        0.5,
        "gatekeeper: weight of fitting correct answers against unlearning wrong ones; a low weight"
        " defers better.",
        ge=0,
        le=1,
    )
