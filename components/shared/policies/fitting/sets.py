"""Certified prediction sets: answers of one outcome or several, which miss the truth at most alpha.

Selective conformal risk control with prediction sets (arXiv 2512.12844), calibrated on calibration
samples alone. First a confidence threshold selects so many answers that coverage reaches a wanted
level. Then come the smallest sets {k: P_k >= 1 - lambda}, with the decision in every one, whose
miscoverage among the selected is certified, by exact binomials as in `certify`.
"""

from typing import NamedTuple

import numpy as np

from components.shared.policies.certify import MAX_CANDIDATES, Certificate
from components.shared.stats.bounds import binomial_p_value, dkw_one_sided
from components.shared.stats.metrics import Floats
from components.shared.stats.multiple_testing import METHODS


class SetSamples(NamedTuple):
    """Samples of a set-valued rule, (N,) each: confidence, and probability of the true outcome.

    The probability is 1 where the decision is right, since the decision is in every set.
    """

    confidence: Floats
    probability_of_truth: Floats


def selection_threshold(
    tuning: Floats, n_samples: int, min_coverage: float, delta: float, *, select_all: float = 0.0
) -> float:
    """Return the largest confidence whose coverage bound will reach `min_coverage`.

    Both the tuning part and the samples may deviate by the Dvoretzky-Kiefer-Wolfowitz margin at
    `delta`. The result is `select_all` where the margins leave no other.

    Args:
        tuning: (M,) confidences of the tuning part.
        n_samples: number of other samples on which coverage will be bounded.
        min_coverage: wanted lower bound of the coverage, in [0, 1).
        delta: probability with which each margin may be exceeded.
        select_all: a threshold that every confidence reaches.
    """
    level = min_coverage + dkw_one_sided(n_samples, delta) + dkw_one_sided(len(tuning), delta)
    if level >= 1:
        return select_all
    return float(np.quantile(tuning, 1 - level, method="lower"))


def certify_sets(
    tuning: SetSamples,
    samples: SetSamples,
    *,
    threshold: float,
    alpha: float,
    delta: float,
    coverage_delta: float,
    method: str,
) -> tuple[Certificate, float] | None:
    """Certify the miscoverage of sets among samples with confidence >= `threshold`.

    Args:
        tuning: samples that propose the candidates.
        samples: samples that test them.
        threshold: least confidence of an answer.
        alpha: the miscoverage to certify, in (0, 1).
        delta: probability with which the certificate may be wrong.
        coverage_delta: the same of the coverage's lower bound.
        method: one of `METHODS`.

    Returns:
        The certificate and the largest certified s in [0, 0.5]: P_k >= s puts outcome k into the
        set; at 0.5 every set is the decision alone. None where even sets of all outcomes cannot be
        certified, because the samples are too few.
    """
    accepted = samples.probability_of_truth[samples.confidence >= threshold]
    levels = np.linspace(0, 1, MAX_CANDIDATES)
    of_tuning = tuning.probability_of_truth[tuning.confidence >= threshold]
    proposed = np.quantile(of_tuning, levels, method="lower")
    # In testing order: from sets of all outcomes, which miss nothing, to single ones. They are
    # rounded as the policy does, which stores 1 - s.
    candidates = 1 - (1 - np.unique(np.append(proposed[proposed < 0.5], [0.0, 0.5])))

    n_missed = (accepted[None] < candidates[:, None]).sum(axis=1).astype(np.int64)
    p_values = binomial_p_value(n_missed, len(accepted), alpha)
    passed = np.flatnonzero(METHODS[method](p_values, delta))
    if not len(passed):
        return None

    n_samples = len(samples.confidence)
    best, coverage = int(passed[-1]), len(accepted) / n_samples
    certificate = Certificate(
        threshold=threshold,
        n_accepted=len(accepted),
        n_errors=int(n_missed[best]),
        p_value=float(p_values[best]),
        coverage=coverage,
        coverage_lower_bound=max(0.0, coverage - dkw_one_sided(n_samples, coverage_delta)),
        n_tested=len(candidates),
    )

    return certificate, float(candidates[best])
