"""Fits the gate's policy: the gate score from which stage 1 answers, with certified risk.

Gate scores become log-odds of a correct decision (Platt scaling) on the tuning groups of VAL_CALIB;
the other groups certify the threshold, as for SCRC.
"""

import numpy as np

from components.calibrate_gate.config import CalibrateGateConfig
from components.shared.calibration.linear import Platt
from components.shared.contracts.errors import ArtifactError, InfeasibleError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.calibration_split import draw_calibration_split, fit_on_tuning
from components.shared.policies.certify import Samples
from components.shared.policies.logits import read_logits
from components.shared.policies.policy import GatePolicy, Infeasible, Policy, argmax_policy
from components.shared.policies.policy_artifact import fit_document, write_infeasible, write_policy
from components.shared.policies.targets import ALL_ANSWERS, Certified, certify_targets, target_of
from components.shared.stats.metrics import Bools, Floats
from components.shared.stats.risk_coverage import augrc

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

    outcomes = config.outcomes(logits.class_names)
    inputs = {"val_calib_logits": manifest}

    try:
        config.check_task(outcomes)
        split = draw_calibration_split(
            logits.groups, config.tuning_fraction, config.seed, config.max_group_images
        )
    except InfeasibleError as error:
        infeasible = Infeasible("gate", str(error))
        write_infeasible(gate_policy, infeasible, step=STEP, config=config, inputs=inputs)
        return

    tuning = split.tuning
    fitted = fit_on_tuning(config.calibrator, logits, split, config.seed)
    softmax = argmax_policy(outcomes, fitted.calibrator)
    truth, decision = logits.truth(outcomes), softmax.decision(logits.logits)
    correct = np.asarray(decision == truth)

    scores = logits.gate.astype(np.float64)
    slope, intercept = _fit_scale(scores[tuning], correct[tuning])
    samples = Samples.of_decisions(config.risk, truth, decision, slope * scores + intercept)
    target = target_of(config, ALL_ANSWERS, samples, logits.groups, split)

    match certify_targets(config, [target], "gate"):
        case Infeasible() as infeasible:
            write_infeasible(gate_policy, infeasible, step=STEP, config=config, inputs=inputs)
        case Certified() as certified:
            # A gate is worth its weights only if it ranks better than the model's confidence.
            ranking = {
                "augrc_of_gate": float(augrc(scores, ~correct)),
                "augrc_of_confidence": float(augrc(softmax.confidence(logits.logits), ~correct)),
            }
            fit = fit_document(config, split, certified) | {"n_images": len(logits.labels)}
            fit |= {"calibrator": fitted.name, "uncalibrated_reason": fitted.reason}
            policy = _policy(config, softmax, slope, intercept, certified)
            write_policy(
                gate_policy, policy, fit | ranking, step=STEP, config=config, inputs=inputs
            )


def _fit_scale(scores: Floats, correct: Bools) -> tuple[float, float]:
    """Return (slope, intercept) of the log-odds that a decision is correct, given gate scores.

    They are (1, 0) where all decisions are correct, or none.
    """
    if correct.all() or not correct.any():
        return 1.0, 0.0
    logits = np.column_stack([np.zeros(len(scores)), scores])
    fitted = Platt.fit(logits, correct.astype(np.int64))
    return fitted.slope[0], fitted.intercept[0]


def _policy(
    config: CalibrateGateConfig,
    softmax: Policy,
    slope: float,
    intercept: float,
    certified: Certified,
) -> GatePolicy:
    return GatePolicy(
        kind="gate",
        outcomes=softmax.outcomes,
        threshold=softmax.threshold,
        threshold_margin=softmax.threshold_margin,
        calibrator=softmax.calibrator,
        risk=config.risk,
        alpha=config.alpha,
        delta=config.delta,
        coverage_lower_bound=certified.coverage_lower_bound,
        max_group_images=config.max_group_images,
        gate_slope=slope,
        gate_intercept=intercept,
        answer_from=certified.certificates[ALL_ANSWERS].threshold,
    )


if __name__ == "__main__":
    main(run, CalibrateGateConfig)
