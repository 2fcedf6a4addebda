"""KFP interface of fit_threshold."""

from kfp import dsl

from components.artifact_types import Calibration, Policy, ValCalibLogits
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def fit_threshold(
    val_calib_logits: dsl.Input[ValCalibLogits],
    calibration: dsl.Input[Calibration],
    policy: dsl.Output[Policy],
    config: dict,
) -> None:
    """Fit the softmax policy: the threshold that maximises the objective on VAL_CALIB."""
    from components.fit_threshold.step import run
    from components.shared.contracts.step import execute

    execute(run, config, val_calib_logits=val_calib_logits, calibration=calibration, policy=policy)
