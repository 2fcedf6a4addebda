"""Phase 5: above which confidence may stage 1 answer, with a guarantee? Selective conformal risk control.

The inductive form (SCRC-I): everything is decided on VAL_CALIB, so that a bundle can carry it. Tuning groups fit the
calibrator and propose thresholds, the others certify them (see shared/selective).
"""

import numpy as np

from components.calibrate_scrc.config import CalibrateScrcConfig
from components.shared.calibration.calibrator import Calibrator
from components.shared.calibration.compare import fit_named
from components.shared.errors import DataError
from components.shared.evaluation.logits import Logits, read_logits
from components.shared.evaluation.metrics import Bools
from components.shared.evaluation.policy import ScrcPolicy, softmax_policy
from components.shared.selective.certify import Certificate
from components.shared.selective.parts import Parts, at, draw_parts, only, samples_for
from components.shared.selective.policy_artifact import fit_document, infeasible, write_policy
from components.shared.selective.targets import Target, certified, obstacle_of
from components.shared.step import InputDir, OutputDir, main


def run(config: CalibrateScrcConfig, *, val_calib_logits: InputDir, scrc_policy: OutputDir) -> None:
    """Write policy.json and fit.json, or, where SCRC is not what the bundle carries, infeasible.json.

    Raises InfeasibleError where the target cannot be certified and policy="scrc"; DataError for data that cannot be
    calibrated on.
    """
    logits, manifest = read_logits(val_calib_logits, "VAL_CALIB")
    if config.positive_class not in logits.class_names:
        raise DataError(f"positive_class={config.positive_class!r} is not in {list(logits.class_names)}")
    parts = draw_parts(logits.groups, config.tuning_share, config.seed)
    rows = parts.tuning
    calibrator = fit_named(
        config.calibrator, logits.logits[rows], logits.labels[rows], [logits.groups[r] for r in rows], config.seed
    )
    targets = _targets(config, logits, parts, calibrator)
    delta = config.risk_delta / len(targets)
    found = {target.name: certified(config, target, delta) for target in targets}
    certificates = {name: certificate for name, certificate in found.items() if certificate is not None}
    inputs = {"val_calib_logits": manifest}
    obstacle = obstacle_of(config, targets, certificates, delta)
    if obstacle is not None:
        reason, level = obstacle
        infeasible(scrc_policy, reason, level, kind="scrc", config=config, inputs=inputs)
        return
    rule = _policy(config, logits, calibrator, certificates)
    fit = fit_document(config, parts, certificates, delta) | {"calibrator": calibrator.NAME}
    write_policy(scrc_policy, rule, fit, step="calibrate_scrc", config=config, inputs=inputs)


def _targets(config: CalibrateScrcConfig, logits: Logits, parts: Parts, calibrator: Calibrator) -> list[Target]:
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
    config: CalibrateScrcConfig, logits: Logits, calibrator: Calibrator, certificates: dict[str, Certificate]
) -> ScrcPolicy:
    positive, negative = (certificates.get(name, certificates.get("all")) for name in ("roadwork", "none"))
    assert positive is not None
    assert negative is not None
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
    )


if __name__ == "__main__":
    main(run, CalibrateScrcConfig)
