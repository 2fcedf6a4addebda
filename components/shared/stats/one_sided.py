"""One-sided test of a difference between two models over groups, at levels as small as 1e-6.

The test is Gaffke's, of the mean of values that have a lower bound (Three test statistics for a
nonparametric one-sided hypothesis on the mean of a nonnegative variable, Mathematical Methods of
Statistics 14, 2005): one more group, with the smallest possible value, is added to the observed
ones, and all are weighted by exponential variables. The p-value is the probability that the
weighted sum is at most 0. It is a Bayesian bootstrap (Rubin, Annals of Statistics 1981) that allows
for what the sample happens not to show. For the difference of two accuracies with one image per
group it is McNemar's exact test.

A test that knows only what it sees is wrong too often where few groups lose much and many win
little: a sample with few of the former shows a larger gain and a smaller variance at once.

Own code, because drawn weights cannot show a probability of 1e-6, which the later comparisons of a
series need: here the tail is computed, by an integral. No library has the test; those that draw
(scipy's `bootstrap` and `permutation_test`) know no groups.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from components.shared.stats import jackknife
from components.shared.stats.bootstrap import Statistic, evaluated
from components.shared.stats.metrics import Floats, Integers

_PRECISION = 1e-5  # of a bound
# Nodes of the integral, in units of the integrand's width, sparser outwards.
_NODES = np.linspace(0.0, 12.0, 121)


@dataclass(frozen=True)
class PairedDifference:
    """Metric of model A minus metric of model B on the same samples, in contributions of groups.

    Attributes:
        value: the difference.
        influence: (B,) float64, what each block of groups adds to it, centred.
        fraction: (B,) float64, fraction of the samples in each block.
        typical_fraction: fraction of the samples in a group of median size.
        worst: difference of the metrics where A does as badly as either model did on its worst
            block, and B as well as either did on its best; at most -1.
    """

    value: float
    influence: Floats
    fraction: Floats
    typical_fraction: float
    worst: float

    def p_value(self, margin: float = 0.0) -> float:
        """Return the p-value of "the true difference is at most `margin`".

        The group that is added has the median size and the worst difference.
        """
        observed = self.influence + (self.value - margin) * self.fraction
        return exponential_tail(np.append(observed, (self.worst - margin) * self.typical_fraction))

    def lower_bound(self, level: float) -> float:
        """Return the margin above which the difference lies with confidence 1 - `level`.

        -inf where it lies below -1, which of most metrics says nothing.
        """
        below, above = -1.0, self.value
        if self.p_value(below) > level:
            return float("-inf")

        while above - below > _PRECISION:
            middle = (below + above) / 2
            if self.p_value(middle) <= level:
                below = middle
            else:
                above = middle
        return below


def paired_contributions(
    first: Statistic, second: Statistic, member: Integers, seed: int
) -> PairedDifference | None:
    """Split the difference of two metrics into contributions of groups, by leaving each one out.

    Args:
        first: metric of model A as a function of weights, in units of which it has at least one
            between its best and its worst value.
        second: the same metric of model B on the same samples.
        member: (N,) int64, group index of each sample.
        seed: of the assignment of groups to blocks, where they are more than 400.

    Returns:
        None with too few groups (fewer than 16, or 4 of equal size), or where the difference does
        not exist without one of them.
    """
    scores = {"first": first, "second": second}
    values = np.array([float(np.asarray(score(None))) for score in scores.values()])
    if not jackknife.enough(member) or not np.isfinite(values).all():
        return None

    block = jackknife.blocks(member, seed)
    left_out = evaluated(scores, jackknife.weights_without(block))
    if not np.isfinite([left_out[name] for name in scores]).all():
        return None

    fraction = np.bincount(block) / len(block)
    influences = np.stack([_influence(left_out[name]) for name in scores])
    of_blocks = values[:, None] + influences / fraction
    return PairedDifference(
        value=float(values[0] - values[1]),
        influence=influences[0] - influences[1],
        fraction=fraction,
        typical_fraction=float(np.median(np.bincount(member))) / len(member),
        # Where neither model errs, nothing is known of a bad group: it is wrong throughout.
        worst=min(-1.0, float(of_blocks.min() - of_blocks.max())),
    )


def _influence(left_out: Floats) -> Floats:
    """Return (B,) what each block adds to a metric, from its values (B,) without each of them."""
    n_blocks = len(left_out)
    return jackknife.centered(left_out) * (n_blocks - 1) / n_blocks


def exponential_tail(coefficients: Floats) -> float:
    """Return P(sum of c_i E_i <= 0) for independent standard exponential variables E_i.

    With the moment generating function M(z) = prod 1 / (1 - c_i z), P is -1 / (2 pi i) times the
    integral of M(z) / z along any line left of 0 that meets the real axis between the poles of M.
    This one goes through the saddle point of M, in the direction of steepest descent, where the
    integrand does not oscillate (Daniels, International Statistical Review 55, 1987).

    Args:
        coefficients: (B,) float64.
    """
    some = coefficients[coefficients != 0]
    if not (some > 0).any():
        return 1.0
    if not (some < 0).any():
        return 0.0
    if some.sum() < 0:
        return 1.0 - exponential_tail(-some)

    c = some / np.abs(some).max()
    inside = 1 - 1e-13
    saddle = brentq(lambda t: (c / (1 - c * t)).sum(), inside / c.min(), inside / c.max())
    tilted = c / (1 - c * saddle)
    width = 1 / np.sqrt((tilted**2).sum())
    bend = 2 / 3 * float((tilted**3).sum()) * width**3  # a third of the skewness
    # The pole at 0 stays at a distance; a line beside the saddle point is as good.
    z = min(saddle, -width / 2) + width * (1j * np.sinh(_NODES) + bend * (np.cosh(_NODES) - 1))
    slope = width * (1j * np.cosh(_NODES) + bend * np.sinh(_NODES))
    integrand = (np.exp(-np.log(1 - c[:, None] * z).sum(axis=0)) / -z * slope).imag
    # Both halves of the line are alike; trapezoidal rule.
    integral = (integrand.sum() - integrand[0] / 2) * (_NODES[1] - _NODES[0])
    return float(np.clip(integral / np.pi, 0.0, 1.0))
