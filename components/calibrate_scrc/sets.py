"""Which answers must name both classes, so that the sets among the answered miss the truth at most
alpha, surely?

Selective conformal risk control with prediction sets (arXiv 2512.12844), calibrated on calibration
samples alone: a confidence threshold selects what is answered, so many that coverage reaches a
wanted level; then the smallest sets {k: P_k >= 1 - lambda} whose miscoverage among the selected is
certified, by exact binomials as in `certify`.
"""

import numpy as np

from components.shared.policies.certify import MAX_CANDIDATES, Certificate
from components.shared.stats.bounds import binomial_p_value, dkw_one_sided
from components.shared.stats.metrics import Floats
from components.shared.stats.multiple_testing import METHODS


def selection_threshold(tuning: Floats, n_samples: int, min_coverage: float, delta: float) -> float:
    """The largest confidence whose coverage bound on `n_samples` other samples will reach
    `min_coverage`, from the confidences of the tuning part (M,), which are >= 0; 0, which selects
    all, where that leaves no other.

    Both the tuning part and the samples may lie off by the Dvoretzky-Kiefer-Wolfowitz margin at
    `delta`.
    """
    level = min_coverage + dkw_one_sided(n_samples, delta) + dkw_one_sided(len(tuning), delta)
    if level >= 1:
        return 0.0
    return float(np.quantile(tuning, 1 - level, method="lower"))


def certify_sets(
    tuning: tuple[Floats, Floats],
    samples: tuple[Floats, Floats],
    *,
    threshold: float,
    alpha: float,
    delta: float,
    coverage_delta: float,
    method: str,
) -> tuple[Certificate, float] | None:
    """The certificate for confidence >= `threshold`, and the largest certified s: P_k >= s puts
    class k into the set.

    Each part is (confidence, probability of the true class), both (N,). s lies in (0, 0.5], so that
    no set is empty; at 0.5 every set has one class. None where not even sets of both classes can be
    certified: too few samples.
    """
    (tuning_confidence, tuning_truth), (confidence, truth) = tuning, samples
    accepted = truth[confidence >= threshold]
    levels = np.linspace(0, 1, MAX_CANDIDATES)
    near = np.quantile(tuning_truth[tuning_confidence >= threshold], levels, method="lower")
    # From sets of both classes, which miss nothing, to single ones.
    candidates = np.unique(np.append(near[near < 0.5], [0.0, 0.5]))
    missed = (accepted[None] < candidates[:, None]).sum(axis=1).astype(np.int64)
    p_values = binomial_p_value(missed, len(accepted), alpha)
    passed = np.flatnonzero(METHODS[method](p_values, delta))
    if not len(passed):
        return None
    best, coverage = int(passed[-1]), len(accepted) / len(truth)
    certificate = Certificate(
        threshold=threshold,
        n_accepted=len(accepted),
        n_errors=int(missed[best]),
        p_value=float(p_values[best]),
        coverage=coverage,
        coverage_lower_bound=max(0.0, coverage - dkw_one_sided(len(truth), coverage_delta)),
        n_tested=len(candidates),
    )
    return certificate, float(candidates[best])
