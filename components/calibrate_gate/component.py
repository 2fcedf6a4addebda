"""KFP interface of calibrate_gate."""

from kfp import dsl

from components.artifact_types import Policy, ValCalibLogits
from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def calibrate_gate(
    val_calib_logits: dsl.Input[ValCalibLogits],
    gate_policy: dsl.Output[Policy],
    config: dict,
) -> None:
    """Fit the gate's policy: defer below the gate score at which a risk of alpha is certified."""
    from components.calibrate_gate.step import run
    from components.shared.contracts.step import execute

    execute(run, config, val_calib_logits=val_calib_logits, gate_policy=gate_policy)
