"""From which confidence on may stage 1 answer, so that its risk among the answered is at most
alpha, surely?

Learn then test (arXiv 2110.01052) with exact binomial p-values: given the number of accepted
samples, the number of errors among them is binomial in the true selective risk. A `tuning` part of
the samples, which takes no part in the tests, gives the candidate thresholds and their order: the
most promising first, then on towards more coverage.
"""

from dataclasses import dataclass

import numpy as np

from components.shared.stats.bounds import (
    binomial_p_value,
    clopper_pearson_upper,
    dkw_one_sided,
    fewest_samples,
)
from components.shared.stats.metrics import Bools, Floats, Integers
from components.shared.stats.multiple_testing import METHODS

# More candidates would not move the threshold by more than half a percent of coverage.
MAX_CANDIDATES = 200


@dataclass(frozen=True)
class Samples:
    """confidence (N,) float64, larger is surer; loss (N,) bool; counted (N,) bool: the samples the
    risk is about.

    The risk is the mean loss among accepted samples that count: all for the error rate, positives
    for the false negative rate.
    """

    confidence: Floats
    loss: Bools
    counted: Bools

    def counts(self, thresholds: Floats) -> tuple[Integers, Integers]:
        """(J,) accepted samples that count, and losses among them, for "confidence >=
        threshold".
        """
        order = np.argsort(self.confidence, kind="stable")
        ordered = self.confidence[order]
        first = np.searchsorted(ordered, thresholds, side="left")
        above = [
            np.r_[np.cumsum(v[order][::-1])[::-1], 0][first]
            for v in (self.counted, self.counted & self.loss)
        ]
        return above[0].astype(np.int64), above[1].astype(np.int64)

    def coverage(self, threshold: float) -> float:
        """Share of all samples that are accepted."""
        return float(np.mean(self.confidence >= threshold))


@dataclass(frozen=True)
class Certificate:
    """A certified threshold and what it rests on.

    risk_upper_bound: Clopper-Pearson at 1 - delta of this threshold alone; coverage_lower_bound
    holds with probability 1 - coverage_delta for whichever threshold was chosen.
    """

    threshold: float
    n_accepted: int
    n_errors: int
    p_value: float
    coverage: float
    coverage_lower_bound: float
    n_tested: int

    @property
    def risk(self) -> float:
        """Empirical risk among the accepted."""
        return self.n_errors / self.n_accepted


def certify(
    tuning: Samples,
    samples: Samples,
    *,
    alpha: float,
    delta: float,
    coverage_delta: float,
    method: str = "fixed_sequence",
) -> Certificate | None:
    """The certified threshold of the largest coverage; None where none is certified.

    With probability at least 1 - delta over `samples` the true risk at the threshold is at most
    alpha, whatever the distribution, as long as samples are exchangeable and `tuning` is
    independent of them.
    """
    thresholds = candidates(tuning, len(samples.confidence), alpha, delta)
    n_accepted, n_errors = samples.counts(thresholds)
    p_values = binomial_p_value(n_errors, n_accepted, alpha)
    passed = np.flatnonzero(METHODS[method](p_values, delta))
    if not len(passed):
        return None
    best = int(passed[np.argmin(thresholds[passed])])
    coverage = samples.coverage(thresholds[best])
    return Certificate(
        threshold=float(thresholds[best]),
        n_accepted=int(n_accepted[best]),
        n_errors=int(n_errors[best]),
        p_value=float(p_values[best]),
        coverage=coverage,
        coverage_lower_bound=max(
            0.0, coverage - dkw_one_sided(len(samples.confidence), coverage_delta)
        ),
        n_tested=len(thresholds),
    )


def candidates(tuning: Samples, n_samples: int, alpha: float, delta: float) -> Floats:
    """(J,) thresholds in testing order, descending: from the one most likely to pass with
    `n_samples`, downwards.
    """
    distinct = np.unique(tuning.confidence)
    if len(distinct) > MAX_CANDIDATES:
        levels = np.linspace(0, 1, MAX_CANDIDATES)
        distinct = np.unique(np.quantile(tuning.confidence, levels, method="lower"))
    thresholds = distinct[::-1]
    n_accepted, n_errors = tuning.counts(thresholds)
    expected = np.round(n_accepted * n_samples / len(tuning.confidence)).astype(np.int64)
    # Half an error is added, so that a handful of correct samples do not look like certainty.
    rate = (n_errors + 0.5) / (n_accepted + 1)
    predicted = binomial_p_value(np.round(expected * rate).astype(np.int64), expected, alpha)
    predicted = np.where(expected < fewest_samples(alpha, delta), 2.0, predicted)
    return np.asarray(thresholds[int(np.argmin(predicted)) :])


def best_level(
    tuning: Samples, samples: Samples, *, delta: float, method: str, start: float
) -> float:
    """The smallest alpha of a grid from `start` to 1 (200 steps) that would have been certified; 1
    where none.
    """
    for alpha in np.geomspace(start, 1.0, 200)[:-1]:
        found = certify(
            tuning, samples, alpha=float(alpha), delta=delta, coverage_delta=delta, method=method
        )
        if found is not None:
            return float(alpha)
    return 1.0


def risk_upper_bound(certificate: Certificate, delta: float) -> float:
    """Clopper-Pearson upper bound of the risk at the certified threshold, taken alone."""
    return float(clopper_pearson_upper(certificate.n_errors, certificate.n_accepted, delta))
