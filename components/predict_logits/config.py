"""Options of the prediction of VAL_CALIB and VAL_TEST."""

from dataclasses import dataclass

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import (
    PREDICTOR_PRECISION,
    ComputeConfig,
    SeedConfig,
    TorchrunConfig,
)


@dataclass(frozen=True, kw_only=True)
class PredictLogitsConfig(ComputeConfig, TorchrunConfig, SeedConfig):
    """Options of the prediction of VAL_CALIB and VAL_TEST.

    The exception to one precision for all: policies are certified on these logits, and hold for the
    deployed model only where the format, and the kernel that it asks for, are the predictor's.
    """

    QUALIFIED = frozenset({"precision", "attention"})

    precision: str = adjusted(
        ComputeConfig,
        "precision",
        default=PREDICTOR_PRECISION,
        help="Number format of the backbone's passes. fp32 is that of the predictor: policies are"
        " certified on these logits. auto, tf32 and bf16 as in training. The bare name sets"
        " the other phases only.",
    )
    robustness: bool = option(
        True, "Also predict VAL_TEST under image corruptions of severity 0 to 3."
    )
    seed: int = adjusted(
        SeedConfig,
        "seed",
        help="Seed of the image corruptions, and of the choice of the drift reference's images.",
    )
