"""Phase 3: the gate score from which on stage 1 may answer, with coverage and risk certified.

Gate scores become log-odds of being right (Platt) on the tuning groups of VAL_CALIB; the other
groups certify the threshold, as for SCRC.
"""

import numpy as np

from components.calibrate_gate.config import CalibrateGateConfig
from components.shared.calibration.compare import fit_named
from components.shared.calibration.linear import Platt
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.calibration_split import at, draw_parts, samples_for
from components.shared.policies.certify import Certificate
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.policy import GatePolicy, Policy, softmax_policy
from components.shared.policies.policy_artifact import fit_document, infeasible, write_policy
from components.shared.policies.targets import Target, certified, infeasibility_reason
from components.shared.stats.metrics import Bools, Floats
from components.shared.stats.risk_coverage import augrc


def run(config: CalibrateGateConfig, *, val_calib_logits: InputDir, gate_policy: OutputDir) -> None:
    """Write policy.json and fit.json, or, where the gate is not what the bundle carries,
    infeasible.json.

    Raises InfeasibleError where the target cannot be certified and policy="gate"; ArtifactError for
    logits without gate scores; DataError for data that cannot be calibrated on.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    if logits.gate is None:
        raise ArtifactError(f"{val_calib_logits}: has no gate.npy; use the logits of train_gate")
    if config.positive_class not in logits.class_names:
        raise DataError(
            f"positive_class={config.positive_class!r} is not in {list(logits.class_names)}"
        )
    parts = draw_parts(logits.groups, config.tuning_fraction, config.seed)
    rows = parts.tuning
    calibrator = fit_named(
        config.calibrator,
        logits.logits[rows],
        logits.labels[rows],
        [logits.groups[r] for r in rows],
        config.seed,
    )
    rule = softmax_policy(logits.class_names, config.positive_class, 0.0, calibrator)
    truth, decision = np.asarray(logits.labels == rule.positive), rule.decision(logits.logits)
    scores = logits.gate.astype(np.float64)
    slope, intercept = _scale(scores[rows], np.asarray(decision == truth)[rows])
    samples = samples_for(config.risk, truth, decision, slope * scores + intercept)
    target = Target("all", at(samples, rows), at(samples, parts.calibration))
    certificate = certified(config, target, config.risk_delta)
    certificates = {} if certificate is None else {"all": certificate}
    inputs = {"val_calib_logits": manifest}
    obstacle = infeasibility_reason(config, [target], certificates, config.risk_delta)
    if obstacle is not None or certificate is None:
        reason, level = obstacle or ("", config.alpha)
        infeasible(gate_policy, reason, level, kind="gate", config=config, inputs=inputs)
        return
    policy = _policy(config, rule, slope, intercept, certificate)
    fit = fit_document(config, parts, certificates, config.risk_delta) | {
        "n_images": len(logits.labels)
    }
    fit |= _ranking(rule, logits, truth, decision, scores)
    write_policy(gate_policy, policy, fit, step="calibrate_gate", config=config, inputs=inputs)


def _scale(scores: Floats, right: Bools) -> tuple[float, float]:
    """(slope, intercept) of the log-odds of being right; (1, 0) where all answers are right, or
    none.
    """
    if right.all() or not right.any():
        return 1.0, 0.0
    fitted = Platt.fit(np.column_stack([np.zeros(len(scores)), scores]), right.astype(np.int64))
    return fitted.slope[0], fitted.intercept[0]


def _policy(
    config: CalibrateGateConfig,
    rule: Policy,
    slope: float,
    intercept: float,
    certificate: Certificate,
) -> GatePolicy:
    return GatePolicy(
        kind="gate",
        class_names=rule.class_names,
        positive_class=rule.positive_class,
        threshold=rule.threshold,
        threshold_margin=rule.threshold_margin,
        calibrator=rule.calibrator,
        risk=config.risk,
        alpha=config.alpha,
        delta=config.delta,
        coverage_lower_bound=certificate.coverage_lower_bound,
        gate_slope=slope,
        gate_intercept=intercept,
        answer_from=certificate.threshold,
    )


def _ranking(
    rule: Policy, logits: Logits, truth: Bools, decision: Bools, scores: Floats
) -> dict[str, float]:
    """AUGRC of the gate and of the model's own confidence: a gate that ranks no better is not worth
    its weights.
    """
    wrong = np.asarray(truth != decision)
    return {
        "augrc_of_gate": float(augrc(scores, wrong)),
        "augrc_of_confidence": float(augrc(rule.confidence(logits.logits), wrong)),
    }


if __name__ == "__main__":
    main(run, CalibrateGateConfig)
