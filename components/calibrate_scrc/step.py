"""Fits the SCRC policy: the confidence from which stage 1 answers, with certified risk.

Selective conformal risk control in its inductive form (SCRC-I, arXiv 2512.12844): everything is
decided on VAL_CALIB, so that a bundle can carry it. Tuning groups fit the calibrator and propose
thresholds, the others certify them (see `components.shared.policies`).
"""

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.shared.contracts.listing import first_of, say
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.fitting.fitted import CertifiedPolicy
from components.shared.policies.fitting.scrc import fit_scrc
from components.shared.policies.logits import read_logits
from components.shared.policies.policy import Infeasible
from components.shared.policies.policy_artifact import write_infeasible, write_policy

STEP = "calibrate_scrc"


def run(config: CalibrateScrcConfig, *, val_calib_logits: InputDir, scrc_policy: OutputDir) -> None:
    """Write policy.json and fit.json, or infeasible.json where nothing can be certified.

    Raises:
        DataError: the positive class is unknown.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    inputs = {"val_calib_logits": manifest}

    match fit_scrc(config, logits):
        case Infeasible() as infeasible:
            write_infeasible(scrc_policy, infeasible, step=STEP, config=config, inputs=inputs)
        case CertifiedPolicy(policy=policy, fit=fit, early_exit=early_exit):
            never = fit["never_answered"]
            if never:
                say(f"scrc: without a certificate, always deferred: {first_of(never)}")
            write_policy(
                scrc_policy,
                policy,
                fit,
                step=STEP,
                config=config,
                inputs=inputs,
                early_exit=early_exit,
            )


if __name__ == "__main__":
    main(run, CalibrateScrcConfig)
