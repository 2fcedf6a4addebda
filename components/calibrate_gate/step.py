"""Fits the gate's policy: the gate score from which stage 1 answers, with certified risk.

Gate scores become log-odds of a correct decision (Platt scaling) on the tuning groups of VAL_CALIB;
the other groups certify the threshold, as for SCRC.
"""

from components.calibrate_gate.config import CalibrateGateConfig
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.fitting.fitted import CertifiedPolicy
from components.shared.policies.fitting.gate import fit_gate
from components.shared.policies.logits import read_logits
from components.shared.policies.policy import Infeasible
from components.shared.policies.policy_artifact import write_infeasible, write_policy

STEP = "calibrate_gate"


def run(config: CalibrateGateConfig, *, val_calib_logits: InputDir, gate_policy: OutputDir) -> None:
    """Write policy.json and fit.json, or infeasible.json where nothing can be certified.

    Raises:
        ArtifactError: the logits have no gate scores.
        DataError: the positive class is unknown.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    if logits.gate is None:
        raise ArtifactError(f"{val_calib_logits}: has no gate.npy; use the logits of train_gate")

    inputs = {"val_calib_logits": manifest}
    match fit_gate(config, logits):
        case Infeasible() as infeasible:
            write_infeasible(gate_policy, infeasible, step=STEP, config=config, inputs=inputs)
        case CertifiedPolicy(policy=policy, fit=fit):
            write_policy(gate_policy, policy, fit, step=STEP, config=config, inputs=inputs)


if __name__ == "__main__":
    main(run, CalibrateGateConfig)
