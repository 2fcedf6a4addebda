"""Fits a policy again, with the options of its first fit, on the logits of another form of a model.

A quantised model is another model: neither a threshold nor a certificate carries over to it.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from components.shared.calibration.compare import LabelledLogits, fit_named
from components.shared.contracts.config import Config
from components.shared.contracts.errors import InfeasibleError
from components.shared.policies.early_exit import fit_early_exit
from components.shared.policies.fitting.answers import answers_document, fit_answers
from components.shared.policies.fitting.binary import binary_document, fit_binary
from components.shared.policies.fitting.config import GateConfig, ScrcConfig, ThresholdConfig
from components.shared.policies.fitting.fitted import FittedPolicy
from components.shared.policies.fitting.gate import fit_gate
from components.shared.policies.fitting.scrc import fit_scrc
from components.shared.policies.logits import Logits
from components.shared.policies.policy import Infeasible, Policy, argmax_policy

C = TypeVar("C", bound=Config)


def refit(policy: Policy, options: Mapping[str, Any], logits: Logits) -> FittedPolicy | Infeasible:
    """Fit a policy of the same kind on other logits, and certify it where the first one was.

    Args:
        policy: The first policy.
        options: Those of its fit, as the manifest of its artifact has them.
        logits: The other model's, of VAL_CALIB.
    """
    if policy.kind == "scrc":
        return fit_scrc(_config(ScrcConfig, options), logits)
    if policy.kind == "gate":
        return fit_gate(_config(GateConfig, options), logits)

    try:
        return _fit_softmax(policy, _config(ThresholdConfig, options), logits)
    except InfeasibleError as error:
        return Infeasible(policy.kind, str(error))


def _fit_softmax(policy: Policy, config: ThresholdConfig, logits: Logits) -> FittedPolicy:
    """Fit the calibrator of the same name, and the threshold on its probabilities."""
    calibrator, reason = None, ""
    if policy.calibrator is not None:
        samples = LabelledLogits(logits.logits, logits.labels, logits.groups, logits.class_names)
        fitted = fit_named(policy.calibrator.NAME, samples, config.seed)
        calibrator, reason = fitted.calibrator, fitted.reason

    uncut = argmax_policy(policy.outcomes, calibrator)
    fit = {
        "calibrator": None if calibrator is None else calibrator.NAME,
        "uncalibrated_reason": reason,
    }
    if policy.outcomes.positive is None:
        answers = fit_answers(uncut, logits, config.alpha)
        return FittedPolicy(answers.policy, fit | answers_document(config.alpha, answers))

    found, threshold = fit_binary(config, uncut, logits)
    fit |= binary_document(config, threshold, np.asarray(logits.truth(policy.outcomes) == 1))
    early_exit = fit_early_exit(
        found, logits, max_changed=config.early_exit_error, seed=config.seed
    )
    return FittedPolicy(found, fit, early_exit)


def _config(kind: type[C], options: Mapping[str, Any]) -> C:
    """Return the options of a fit as the manifest of its artifact holds them."""
    return kind.from_mapping(options)
