"""Options of the prediction of VAL_CALIB and VAL_TEST."""

from dataclasses import dataclass

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import SeedConfig, TorchrunConfig


@dataclass(frozen=True, kw_only=True)
class PredictLogitsConfig(TorchrunConfig, SeedConfig):
    """Options of the prediction of VAL_CALIB and VAL_TEST."""

    robustness: bool = option(
        True, "Also predict VAL_TEST under image corruptions of severity 0 to 3."
    )
    seed: int = adjusted(SeedConfig, "seed", help="Seed of the image corruptions.")
