"""Phase 5: above which confidence may stage 1 answer, with a guarantee? Selective conformal risk
control.

The inductive form (SCRC-I): everything is decided on VAL_CALIB, so that a bundle can carry it.
Tuning groups fit the calibrator and propose thresholds, the others certify them (see
shared/selective).
"""

from dataclasses import dataclass

import numpy as np

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.calibrate_scrc.sets import certify_sets, selection_threshold
from components.shared.calibration.calibrator import Calibrator
from components.shared.calibration.compare import fit_named
from components.shared.contracts.errors import DataError
from components.shared.contracts.step import InputDir, OutputDir, main
from components.shared.policies.calibration_split import (
    CalibrationSplit,
    at,
    draw_parts,
    only,
    samples_for,
)
from components.shared.policies.certify import Certificate
from components.shared.policies.early_exit import fit_early_exit
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.policy import ScrcPolicy, softmax_policy
from components.shared.policies.policy_artifact import fit_document, infeasible, write_policy
from components.shared.policies.targets import (
    Target,
    certified,
    infeasibility_reason,
    too_few,
    too_little_coverage,
)
from components.shared.stats.metrics import Bools, sigmoid


def run(config: CalibrateScrcConfig, *, val_calib_logits: InputDir, scrc_policy: OutputDir) -> None:
    """Write policy.json and fit.json, or, where SCRC is not what the bundle carries,
    infeasible.json.

    Raises InfeasibleError where the target cannot be certified and policy="scrc"; DataError for
    data that cannot be calibrated on.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
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
    fitted = (_sets if config.set_valued else _single)(config, logits, parts, calibrator)
    inputs = {"val_calib_logits": manifest}
    if fitted.obstacle is not None:
        reason, level = fitted.obstacle
        infeasible(scrc_policy, reason, level, kind="scrc", config=config, inputs=inputs)
        return
    rule = _policy(config, logits, calibrator, fitted)
    fit = fit_document(config, parts, fitted.certificates, fitted.delta)
    fit |= {"calibrator": calibrator.NAME, "single_from": fitted.single_from}
    early = fit_early_exit(rule, logits, max_changed=config.early_exit_error, seed=config.seed)
    write_policy(
        scrc_policy,
        rule,
        fit,
        step="calibrate_scrc",
        config=config,
        inputs=inputs,
        early_exit=early,
    )


@dataclass(frozen=True)
class _Fitted:
    """Certificates by answer ("all" or each), each at `delta`; or why there are none, and the best
    level.
    """

    certificates: dict[str, Certificate]
    delta: float
    obstacle: tuple[str, float] | None
    single_from: float | None = None


def _single(
    config: CalibrateScrcConfig, logits: Logits, parts: CalibrationSplit, calibrator: Calibrator
) -> _Fitted:
    """One class for an answer."""
    targets = _targets(config, logits, parts, calibrator)
    delta = config.risk_delta / len(targets)
    found = {target.name: certified(config, target, delta) for target in targets}
    certificates = {
        name: certificate for name, certificate in found.items() if certificate is not None
    }
    return _Fitted(certificates, delta, infeasibility_reason(config, targets, certificates, delta))


def _sets(
    config: CalibrateScrcConfig, logits: Logits, parts: CalibrationSplit, calibrator: Calibrator
) -> _Fitted:
    """One class or both for an answer; what is deferred is only what `min_coverage` leaves."""
    rule, delta = (
        softmax_policy(logits.class_names, config.positive_class, 0.0, calibrator),
        config.risk_delta,
    )
    margin = rule.margin(logits.logits)
    of_truth = sigmoid(np.where(logits.labels == rule.positive, margin, -margin))
    tuning, samples = (
        (np.abs(margin[rows]), of_truth[rows]) for rows in (parts.tuning, parts.calibration)
    )
    threshold = selection_threshold(tuning[0], len(samples[0]), config.min_coverage, delta)
    found = certify_sets(
        tuning,
        samples,
        threshold=threshold,
        alpha=config.alpha,
        delta=delta,
        coverage_delta=delta,
        method=config.multiple_testing,
    )
    if found is None:
        return _Fitted({}, delta, too_few(config, int((samples[0] >= threshold).sum())))
    certificate, least = found
    certificates = {"all": certificate}
    return _Fitted(certificates, delta, too_little_coverage(config, certificates), 1 - least)


def _targets(
    config: CalibrateScrcConfig, logits: Logits, parts: CalibrationSplit, calibrator: Calibrator
) -> list[Target]:
    rule = softmax_policy(logits.class_names, config.positive_class, 0.0, calibrator)
    truth: Bools = logits.labels == rule.positive
    decision = rule.decision(logits.logits)
    every = samples_for(config.risk, truth, decision, rule.confidence(logits.logits))
    if not config.class_wise:
        return [Target("all", at(every, parts.tuning), at(every, parts.calibration))]
    chosen = {"roadwork": decision, "none": np.asarray(~decision)}
    samples = {name: only(every, rows) for name, rows in chosen.items()}
    return [Target(n, at(s, parts.tuning), at(s, parts.calibration)) for n, s in samples.items()]


def _policy(
    config: CalibrateScrcConfig, logits: Logits, calibrator: Calibrator, fitted: _Fitted
) -> ScrcPolicy:
    certificates = fitted.certificates
    positive, negative = (
        certificates.get(name) or certificates["all"] for name in ("roadwork", "none")
    )
    return ScrcPolicy(
        kind="scrc",
        class_names=logits.class_names,
        positive_class=config.positive_class,
        threshold=0.5,
        threshold_margin=0.0,
        calibrator=calibrator,
        risk=config.risk,
        alpha=config.alpha,
        delta=config.delta,
        coverage_lower_bound=sum(c.coverage_lower_bound for c in certificates.values()),
        answer_positive_from=positive.threshold,
        answer_negative_from=negative.threshold,
        single_from=fitted.single_from,
    )


if __name__ == "__main__":
    main(run, CalibrateScrcConfig)
