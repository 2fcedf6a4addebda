"""On how many processes is predicted?"""

from dataclasses import dataclass

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class PredictLogitsConfig(Config):
    """Parameters of the prediction of VAL_CALIB and VAL_TEST."""

    n_processes: int = option(0, "Processes of torchrun; 0: one per visible GPU, one without GPU.", ge=0)
