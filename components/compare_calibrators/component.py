"""KFP interface of compare_calibrators."""

from kfp import dsl

from components.compare_calibrators.config import CompareCalibratorsConfig
from components.shared.artifact_types import Calibration, ValCalibLogits
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(CompareCalibratorsConfig)
def compare_calibrators(
    val_calib_logits: dsl.Input[ValCalibLogits], calibration: dsl.Output[Calibration],
    calibrator: str = "auto", positive_class: str = "Roadwork", n_bootstrap: int = 2000, seed: int = 0,
) -> None:
    """Compare calibrators by cross-fitting on VAL_CALIB, and fit the chosen one."""
    arguments = dict(locals())
    from components.compare_calibrators import config, step
    from components.shared.step import execute
    execute(step.run, config.CompareCalibratorsConfig, arguments)
