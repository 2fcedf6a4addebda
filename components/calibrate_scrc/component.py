"""KFP interface of calibrate_scrc."""

from kfp import dsl

from components.artifact_types import Policy, ValCalibLogits
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def calibrate_scrc(
    val_calib_logits: dsl.Input[ValCalibLogits],
    scrc_policy: dsl.Output[Policy],
    config: dict,
) -> None:
    """Fit the SCRC policy: defer below the confidence at which a risk of alpha is certified."""
    from components.calibrate_scrc.step import run
    from components.shared.contracts.step import execute

    execute(run, config, val_calib_logits=val_calib_logits, scrc_policy=scrc_policy)
