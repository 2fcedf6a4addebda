"""KFP interface of calibrate_gate."""

from kfp import dsl

from components.calibrate_gate.config import CalibrateGateConfig
from components.shared.artifact_types import Policy, ValCalibLogits
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(CalibrateGateConfig)
def calibrate_gate(
    val_calib_logits: dsl.Input[ValCalibLogits], gate_policy: dsl.Output[Policy],
    policy: str = "softmax", risk: str = "error", alpha: float = 0.05, delta: float = 0.1, min_coverage: float = 0.0,
    multiple_testing: str = "fixed_sequence", tuning_fraction: float = 0.3, calibrator: str = "auto",
    positive_class: str = "Roadwork", seed: int = 0,
) -> None:
    """Fit the gate's policy: defer below the gate score from which a risk of at most alpha is certified."""
    arguments = dict(locals())
    from components.calibrate_gate import config, step
    from components.shared.step import execute
    execute(step.run, config.CalibrateGateConfig, arguments)
