"""Certified thresholds: the confidence above which the risk of an answer is at most alpha.

Learn then test (arXiv 2110.01052) with exact binomial p-values: given the number of accepted
samples, the number of errors among them is binomial in the true selective risk. A `tuning` part of
the samples, which takes no part in the tests, gives the candidate thresholds and their order: the
most promising first, then on towards more coverage.

Own code, because MAPIE's controllers test a fixed grid and know neither a tuning part nor risks of
a subset of the samples.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.stats.bounds import (
    betting_p_value,
    binomial_p_value,
    clopper_pearson_upper,
    dkw_one_sided,
    fewest_samples,
)
from components.shared.stats.metrics import Bools, Floats, Integers
from components.shared.stats.multiple_testing import METHODS

# More candidates would not move the threshold by more than half a percent of coverage.
MAX_CANDIDATES = 200
_N_LEVELS = 200  # of the search for the smallest certifiable alpha


@dataclass(frozen=True)
class Samples:
    """Samples of a selection rule, and the risk that is counted on them.

    confidence: (N,) float64, larger is more confident, -inf for samples that are never accepted.
    loss: (N,) bool. counted: (N,) bool, the samples that the risk is about: all for the error rate,
    positives for the false negative rate. The risk is the mean loss among the accepted samples that
    count.

    Without `member` the samples are independent of each other: one image of each group, and the
    risk is that of a random image of a random group. With `member` they are all images of their
    groups, which have at most `max_group_images` each, and the risk is that of a random image.

    member: (N,) int64, the group of each sample, or None.
    weight: (N,) float64 of mean 1, or None for ones: what each sample counts among those that
    propose thresholds. They are all images of their groups, while one of each group is tested.
    """

    confidence: Floats
    loss: Bools
    counted: Bools
    member: Integers | None = None
    max_group_images: int = 1
    weight: Floats | None = None

    @classmethod
    def of_decisions(
        cls, risk: str, truth: Integers, decision: Integers, confidence: Floats
    ) -> "Samples":
        """Build samples from decisions; another decision than the truth is a loss.

        Args:
            risk: "error" counts all samples; "fnr", of a binary task, counts the positive ones.
            truth: (N,) int64, outcomes; 1 is the positive class of a binary task.
            decision: (N,) int64, outcomes.
            confidence: (N,) float64.
        """
        counted = np.asarray(truth == 1) if risk == "fnr" else np.ones(len(truth), dtype=bool)
        return cls(confidence, np.asarray(truth != decision), counted)

    def take(self, rows: Integers) -> "Samples":
        """Return the samples at `rows` (n,)."""
        return replace(
            self,
            confidence=self.confidence[rows],
            loss=self.loss[rows],
            counted=self.counted[rows],
            member=None if self.member is None else self.member[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def mask(self, acceptable: Bools) -> "Samples":
        """Return the same samples, of which only the acceptable ones (N,) can be accepted."""
        confidence = np.where(acceptable, self.confidence, -np.inf)
        return replace(self, confidence=confidence, counted=self.counted & acceptable)

    def counts(self, thresholds: Floats) -> tuple[Integers, Integers]:
        """Count what "accept if confidence >= threshold" accepts.

        Returns:
            Accepted samples that count, and losses among them, (J,) int64 each.
        """
        accepted, losses = self._sums(thresholds, np.ones(len(self.confidence), dtype=np.int64))
        return accepted.astype(np.int64), losses.astype(np.int64)

    def weighted_counts(self, thresholds: Floats) -> tuple[Floats, Floats]:
        """Return the sums of the weights of what `counts` counts, (J,) float64 each."""
        ones = np.ones(len(self.confidence))
        return self._sums(thresholds, ones if self.weight is None else self.weight)

    def _sums(
        self, thresholds: Floats, value: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Sum `value` (N,) over the accepted samples that count, and over the losses among them."""
        order = np.argsort(self.confidence, kind="stable")
        first = np.searchsorted(self.confidence[order], thresholds, side="left")

        def sum_above(event: Bools) -> npt.NDArray[Any]:
            from_the_top = np.cumsum((event * value)[order][::-1])[::-1]
            return np.asarray(np.r_[from_the_top, 0][first])

        return sum_above(self.counted), sum_above(self.counted & self.loss)

    def p_values(self, thresholds: Floats, alpha: float) -> Floats:
        """Return (J,) p-values of "the risk at this threshold exceeds alpha"."""
        if self.member is None:
            n_accepted, n_errors = self.counts(thresholds)
            return binomial_p_value(n_errors, n_accepted, alpha)

        # The sum over a group of (loss - alpha) of its accepted images has the sign of risk - alpha
        # in the mean; divided by the largest size it is at most 1 - alpha.
        value = np.where(self.counted, self.loss - alpha, 0.0) / self.max_group_images
        order = np.argsort(self.member, kind="stable")
        first = np.flatnonzero(np.diff(self.member[order], prepend=-1))
        accepted = self.confidence[order, None] >= thresholds
        excess = np.add.reduceat(accepted * value[order, None], first, axis=0)
        return betting_p_value(excess, 1 - alpha)

    def coverage(self, threshold: float) -> float:
        """Return the fraction of all samples that are accepted."""
        return float(np.mean(self.confidence >= threshold))


@dataclass(frozen=True)
class Certificate:
    """A certified threshold and the counts that prove it.

    coverage_lower_bound holds with probability 1 - coverage_delta for whichever threshold was
    chosen; it is 0, which says nothing, where the samples are all images of their groups. p_value
    is that of the chosen threshold, one of n_tested.
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
    """Return the certified threshold of the largest coverage; None where none is certified.

    With probability at least 1 - delta over `samples` the true risk at the threshold is at most
    alpha, whatever the distribution, if the groups of samples are exchangeable and independent of
    `tuning`.

    Args:
        tuning: samples that propose the thresholds and their order.
        samples: samples that test them.
        alpha: the risk to certify, in (0, 1).
        delta: probability with which the certificate may be wrong, in (0, 1).
        coverage_delta: the same of the coverage's lower bound.
        method: one of `METHODS`.
    """
    thresholds = candidate_thresholds(tuning, len(samples.confidence), alpha, delta)
    n_accepted, n_errors = samples.counts(thresholds)
    p_values = samples.p_values(thresholds, alpha)
    passed = np.flatnonzero(METHODS[method](p_values, delta))
    if not len(passed):
        return None

    best = int(passed[np.argmin(thresholds[passed])])
    coverage = samples.coverage(thresholds[best])
    margin = dkw_one_sided(len(samples.confidence), coverage_delta)
    lower_bound = max(0.0, coverage - margin) if samples.member is None else 0.0

    return Certificate(
        threshold=float(thresholds[best]),
        n_accepted=int(n_accepted[best]),
        n_errors=int(n_errors[best]),
        p_value=float(p_values[best]),
        coverage=coverage,
        coverage_lower_bound=lower_bound,
        n_tested=len(thresholds),
    )


def candidate_thresholds(tuning: Samples, n_samples: int, alpha: float, delta: float) -> Floats:
    """Return (J,) finite thresholds in testing order, descending.

    The first is the one most likely to pass a test with `n_samples` samples. There is none where no
    tuning sample can be accepted, as where the answer of a class never occurs.
    """
    # Masked samples have the confidence -inf, which is no threshold: it would accept them.
    acceptable = tuning.confidence[np.isfinite(tuning.confidence)]
    distinct = np.unique(acceptable)
    if not len(distinct):
        return distinct

    if len(distinct) > MAX_CANDIDATES:
        levels = np.linspace(0, 1, MAX_CANDIDATES)
        distinct = np.unique(np.quantile(acceptable, levels, method="lower"))

    thresholds = distinct[::-1]
    if tuning.member is not None:
        predicted = tuning.p_values(thresholds, alpha)
        return np.asarray(thresholds[int(np.argmin(predicted)) :])

    n_accepted, n_errors = tuning.weighted_counts(thresholds)
    expected = np.round(n_accepted * n_samples / len(tuning.confidence)).astype(np.int64)
    # Half an error is added, so that a handful of correct samples do not look like certainty.
    rate = (n_errors + 0.5) / (n_accepted + 1)
    predicted = binomial_p_value(np.round(expected * rate).astype(np.int64), expected, alpha)
    # 2 is larger than any p-value: so few samples cannot pass even without an error.
    predicted = np.where(expected < fewest_samples(alpha, delta), 2.0, predicted)

    return np.asarray(thresholds[int(np.argmin(predicted)) :])


def best_level(
    tuning: Samples, samples: Samples, *, delta: float, method: str, start: float
) -> float:
    """Return the smallest alpha, on a grid from `start` to 1, that would have been certified."""
    for alpha in np.geomspace(start, 1.0, _N_LEVELS)[:-1]:
        found = certify(
            tuning, samples, alpha=float(alpha), delta=delta, coverage_delta=delta, method=method
        )
        if found is not None:
            return float(alpha)
    return 1.0


def risk_upper_bound(certificate: Certificate, delta: float) -> float:
    """Return the Clopper-Pearson upper bound of the risk at the certified threshold alone.

    It is for independent samples.
    """
    return float(clopper_pearson_upper(certificate.n_errors, certificate.n_accepted, delta))
