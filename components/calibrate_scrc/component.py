"""KFP interface of calibrate_scrc."""

from kfp import dsl

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.shared.artifact_types import Policy, ValCalibLogits
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(CalibrateScrcConfig)
def calibrate_scrc(
    val_calib_logits: dsl.Input[ValCalibLogits], scrc_policy: dsl.Output[Policy],
    policy: str = "softmax", risk: str = "error", alpha: float = 0.05, delta: float = 0.1, min_coverage: float = 0.0,
    multiple_testing: str = "fixed_sequence", tuning_fraction: float = 0.3, class_wise: bool = False,
    set_valued: bool = False, calibrator: str = "auto", early_exit_error: float = 0.005,
    positive_class: str = "Roadwork", seed: int = 0,
) -> None:
    """Fit the SCRC policy: defer where a risk of at most alpha among the answered cannot be certified."""
    arguments = dict(locals())
    from components.calibrate_scrc import config, step
    from components.shared.step import execute
    execute(step.run, config.CalibrateScrcConfig, arguments)
