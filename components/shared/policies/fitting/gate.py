"""The fit of a gate's policy: the gate score from which stage 1 answers, with certified risk."""

import numpy as np

from components.shared.calibration.linear import Platt
from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.calibration_split import draw_calibration_split, fit_on_tuning
from components.shared.policies.certify import Samples
from components.shared.policies.fitting.config import GateConfig
from components.shared.policies.fitting.fitted import CertifiedPolicy
from components.shared.policies.logits import Logits
from components.shared.policies.policy import GatePolicy, Infeasible, Policy, argmax_policy
from components.shared.policies.policy_artifact import fit_document
from components.shared.policies.targets import ALL_ANSWERS, Certified, certify_targets, target_of
from components.shared.stats.metrics import Bools, Floats
from components.shared.stats.risk_coverage import augrc

_KIND = "gate"


def fit_gate(config: GateConfig, logits: Logits) -> CertifiedPolicy | Infeasible:
    """Fit and certify the policy on the logits and gate scores of VAL_CALIB.

    Raises:
        DataError: the positive class is unknown.
        ValueError: the logits have no gate scores.
    """
    if logits.gate is None:
        raise ValueError("the logits have no gate scores")

    outcomes = config.outcomes(logits.class_names)
    try:
        config.check_task(outcomes)
        split = draw_calibration_split(
            logits.groups, config.tuning_fraction, config.seed, config.max_group_images
        )
    except InfeasibleError as error:
        return Infeasible(_KIND, str(error))

    tuning = split.tuning
    fitted = fit_on_tuning(config.calibrator, logits, split, config.seed)
    softmax = argmax_policy(outcomes, fitted.calibrator)
    truth, decision = logits.truth(outcomes), softmax.decision(logits.logits)
    correct = np.asarray(decision == truth)

    scores = logits.gate.astype(np.float64)
    slope, intercept = _fit_scale(scores[tuning], correct[tuning])
    samples = Samples.of_decisions(config.risk, truth, decision, slope * scores + intercept)
    target = target_of(config, ALL_ANSWERS, samples, logits.groups, split)

    certified = certify_targets(config, [target], _KIND)
    if isinstance(certified, Infeasible):
        return certified

    fit = fit_document(config, split, certified) | {
        "n_images": len(logits.labels),
        "calibrator": fitted.name,
        "uncalibrated_reason": fitted.reason,
        # A gate is worth its weights only if it ranks better than the model's confidence.
        "augrc_of_gate": float(augrc(scores, ~correct)),
        "augrc_of_confidence": float(augrc(softmax.confidence(logits.logits), ~correct)),
    }
    return CertifiedPolicy(_policy(config, softmax, slope, intercept, certified), fit)


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
    config: GateConfig,
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
