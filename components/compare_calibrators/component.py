"""KFP interface of compare_calibrators."""

from kfp import dsl

from components.artifact_types import Calibration, ValCalibLogits
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def compare_calibrators(
    val_calib_logits: dsl.Input[ValCalibLogits],
    calibration: dsl.Output[Calibration],
    config: dict,
) -> None:
    """Compare calibrators by cross-fitting on VAL_CALIB, and fit the chosen one."""
    from components.compare_calibrators.step import run
    from components.shared.contracts.step import execute

    execute(run, config, val_calib_logits=val_calib_logits, calibration=calibration)
