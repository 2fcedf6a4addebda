"""Options of the prediction of VAL_CALIB and VAL_TEST."""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.contracts.options import TorchrunConfig


@dataclass(frozen=True, kw_only=True)
class PredictLogitsConfig(TorchrunConfig):
    """Parameters of the prediction of VAL_CALIB and VAL_TEST."""

    robustness: bool = option(
        True,
        "Also says what the model says of VAL_TEST under the deployment's distortions, levels 0"
        " to 3.",
    )
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )
