"""The fit of an SCRC policy: the confidence from which stage 1 answers, with certified risk."""

import numpy as np

from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.calibration_split import (
    CalibrationSplit,
    draw_calibration_split,
    fit_on_tuning,
)
from components.shared.policies.certify import Samples
from components.shared.policies.early_exit import fit_early_exit
from components.shared.policies.fitting.config import ScrcConfig
from components.shared.policies.fitting.fitted import CertifiedPolicy
from components.shared.policies.fitting.sets import SetSamples, certify_sets, selection_threshold
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Infeasible, Policy, ScrcPolicy, argmax_policy
from components.shared.policies.policy_artifact import fit_document
from components.shared.policies.targets import (
    ALL_ANSWERS,
    Certified,
    Target,
    certify_targets,
    check_coverage,
    target_of,
    too_few_for_sets,
)

_KIND = "scrc"


def fit_scrc(config: ScrcConfig, logits: Logits) -> CertifiedPolicy | Infeasible:
    """Fit and certify the policy on the logits of VAL_CALIB.

    Raises:
        DataError: the positive class is unknown.
    """
    outcomes = config.outcomes(logits.class_names)
    try:
        config.check_task(outcomes)
        split = draw_calibration_split(
            logits.groups, config.tuning_fraction, config.seed, config.max_group_images
        )
    except InfeasibleError as error:
        return Infeasible(_KIND, str(error))

    fitted = fit_on_tuning(config.calibrator, logits, split, config.seed)
    softmax = argmax_policy(outcomes, fitted.calibrator)

    single_from: float | None = None

    if config.set_valued:
        certified, single_from = _certify_sets(config, logits, split, softmax)
    else:
        # A binary policy that gives one of its answers only has nothing to tell apart; of many
        # classes some are too rare for a certificate.
        certified = certify_targets(
            config,
            _targets(config, logits, split, softmax),
            _KIND,
            need_all=outcomes.positive is not None,
        )
    if isinstance(certified, Infeasible):
        return certified

    policy = _policy(config, softmax, certified, single_from)
    fit = fit_document(config, split, certified) | {
        "calibrator": fitted.name,
        "uncalibrated_reason": fitted.reason,
        "single_from": single_from,
        "never_answered": list(certified.uncertified),
    }
    early_exit = fit_early_exit(
        policy, logits, max_changed=config.early_exit_error, seed=config.seed
    )
    return CertifiedPolicy(policy, fit, early_exit)


def _targets(
    config: ScrcConfig, logits: Logits, split: CalibrationSplit, softmax: Policy
) -> list[Target]:
    """Return one target for all answers, or with `class_wise` one for each answer."""
    truth, decision = logits.truth(softmax.outcomes), softmax.decision(logits.logits)
    confidence = softmax.confidence(logits.logits)
    samples = Samples.of_decisions(config.risk, truth, decision, confidence)

    if config.class_wise:
        by_answer = {
            name: samples.mask(np.asarray(decision == outcome))
            for outcome, name in enumerate(softmax.outcomes.names)
        }
    else:
        by_answer = {ALL_ANSWERS: samples}

    return [
        target_of(config, name, of_answer, logits.groups, split)
        for name, of_answer in by_answer.items()
    ]


def _certify_sets(
    config: ScrcConfig, logits: Logits, split: CalibrationSplit, softmax: Policy
) -> tuple[Certified | Infeasible, float | None]:
    """Certify answers that are sets of outcomes; only what `min_coverage` leaves is deferred.

    Returns:
        The certificate, and 1 minus the least probability of a member of a set.
    """
    delta = config.risk_delta
    confidence, truth = softmax.confidence(logits.logits), logits.truth(softmax.outcomes)
    of_truth = softmax.probabilities(logits.logits)[np.arange(len(truth)), truth]
    # The decision is in every set, however improbable.
    of_truth = np.where(softmax.decision(logits.logits) == truth, 1.0, of_truth)
    tuning, samples = (
        SetSamples(confidence[rows], of_truth[rows]) for rows in (split.tuning, split.calibration)
    )

    threshold = selection_threshold(
        tuning.confidence,
        len(samples.confidence),
        config.min_coverage,
        delta,
        select_all=softmax.threshold_margin,
    )
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
        n_selected = int((samples.confidence >= threshold).sum())
        return too_few_for_sets(config, n_selected, _KIND), None

    certificate, least_probability = found
    certified = Certified({ALL_ANSWERS: certificate}, delta)

    return check_coverage(config, certified, _KIND), 1 - least_probability


def _policy(
    config: ScrcConfig, softmax: Policy, certified: Certified, single_from: float | None
) -> ScrcPolicy:
    certificates, names = certified.certificates, softmax.outcomes.names
    bounds: tuple[float | None, ...]

    if config.class_wise:
        bounds = tuple(
            certificates[name].threshold if name in certificates else None for name in names
        )
    else:
        bounds = (certificates[ALL_ANSWERS].threshold,) * len(names)

    return ScrcPolicy(
        kind=_KIND,
        outcomes=softmax.outcomes,
        threshold=softmax.threshold,
        threshold_margin=softmax.threshold_margin,
        calibrator=softmax.calibrator,
        risk=config.risk,
        alpha=config.alpha,
        delta=config.delta,
        coverage_lower_bound=certified.coverage_lower_bound,
        max_group_images=config.max_group_images,
        answer_from=bounds,
        single_from=single_from,
    )
