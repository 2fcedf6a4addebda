"""What is predicted besides the images as they are, and on how many processes?"""

from dataclasses import dataclass

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class PredictLogitsConfig(Config):
    """Parameters of the prediction of VAL_CALIB and VAL_TEST."""

    robustness: bool = option(
        True, "Also says what the model says of VAL_TEST under the deployment's distortions, levels 0 to 3."
    )
    seed: int = option(0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0)
    n_processes: int = option(0, "Processes of torchrun; 0: one per visible GPU, one without GPU.", ge=0)
