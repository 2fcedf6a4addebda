"""KFP interface of fit_threshold."""

from kfp import dsl

from components.fit_threshold.config import FitThresholdConfig
from components.shared.artifact_types import Calibration, Policy, ValCalibLogits
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(FitThresholdConfig)
def fit_threshold(
    val_calib_logits: dsl.Input[ValCalibLogits], calibration: dsl.Input[Calibration], policy: dsl.Output[Policy],
    objective: str = "mcc", max_fnr: float = 1.0, positive_class: str = "Roadwork", n_bootstrap: int = 2000,
    early_exit_error: float = 0.005, seed: int = 0,
) -> None:
    """Fit the softmax policy: the threshold on P(positive) that maximises the objective on VAL_CALIB."""
    arguments = dict(locals())
    from components.fit_threshold import config, step
    from components.shared.step import execute
    execute(step.run, config.FitThresholdConfig, arguments)
