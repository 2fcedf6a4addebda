"""One-sided test of a difference between two models over groups, at levels as small as 1e-6.

If the first model is better by no more than a margin, what a group contributes to the difference is
as likely to be negative as positive. The test turns the signs of whole groups around: a wild
cluster bootstrap with Rademacher weights and the null hypothesis imposed (Cameron, Gelbach, Miller,
Review of Economics and Statistics 2008; section 3 prefers the null imposed). For the difference of
two accuracies with one image per group it is McNemar's exact test.

Own code, because drawn resamples cannot show a probability of 1e-6, which the later comparisons of
a series need: here the tail is computed, by the recursion of a subset sum on a grid. scipy's
`permutation_test` draws, and knows no groups.
"""

from dataclasses import dataclass

import numpy as np

from components.shared.stats import jackknife
from components.shared.stats.bootstrap import Statistic, evaluated
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Floats, Integers

# Steps of the grid on which contributions are added: coarser ones shift a tail of 1e-6 by percents.
_N_STEPS = 2**16
_PRECISION = 1e-3  # of a bound, in standard errors
_FARTHEST = 2.0**10  # standard errors: no tail probability is resolved beyond


@dataclass(frozen=True)
class PairedDifference:
    """Metric of model A minus metric of model B on the same samples, in contributions of groups.

    Attributes:
        value: the difference.
        influence: (B,) float64, what each block of groups adds to it, centred.
        fraction: (B,) float64, fraction of the samples in each block.
        standard_error: of the difference.
    """

    value: float
    influence: Floats
    fraction: Floats
    standard_error: float

    def p_value(self, margin: float = 0.0) -> float:
        """Return the p-value of "the true difference is at most `margin`"."""
        gain = self._without_skewness(self.value - margin)
        return sign_flip_tail(self.influence + gain * self.fraction)

    def _without_skewness(self, gain: float) -> float:
        """Return a gain that is reduced where few groups lose much and many win little.

        A sample that happens to have few of the former shows a larger gain and a smaller variance
        at once, so that a test which takes both sides for alike is too often wrong. Hall's
        transformation of Student's t (JRSS B 1992) removes the skewness; it is monotone. Where the
        skewness has the other sign the test is conservative, and stays exact where it is exact.
        """
        error = float(np.sqrt((self.influence**2).sum()))
        skewness = float((self.influence**3).sum()) / error**3 if error > 0 else 0.0
        if skewness >= 0:
            return gain
        t = gain / error
        return error * (t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6)

    def lower_bound(self, level: float) -> float:
        """Return the margin above which the difference lies with confidence 1 - `level`.

        -inf where the groups are too few for any bound at this level.
        """
        unit = max(self.standard_error, 1e-12)
        reach = 1.0
        while self.p_value(self.value - reach * unit) > level:
            reach *= 2
            if reach > _FARTHEST:
                return float("-inf")

        below, above = self.value - reach * unit, self.value
        while above - below > _PRECISION * unit:
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
        first: metric of model A as a function of weights.
        second: the same metric of model B on the same samples.
        member: (N,) int64, group index of each sample.
        seed: of the assignment of groups to blocks, where they are more than 400.

    Returns:
        None with too few groups (fewer than 16, or 4 of equal size), or where the difference does
        not exist without one of them.
    """

    def difference(weights: Floats | None) -> Floats:
        ours = np.asarray(first(weights), dtype=np.float64)
        theirs = np.asarray(second(weights), dtype=np.float64)
        return (ours - theirs)[()]

    value = float(difference(None))
    if not jackknife.enough(member) or not np.isfinite(value):
        return None

    block = jackknife.blocks(member, seed)
    left_out = evaluated({"": difference}, jackknife.weights_without(block))[""]
    if not np.isfinite(left_out).all():
        return None

    n_blocks = len(left_out)
    return PairedDifference(
        value=value,
        influence=jackknife.centered(left_out) * (n_blocks - 1) / n_blocks,
        fraction=np.bincount(block) / len(block),
        standard_error=jackknife.standard_error(value, left_out, Scale.REAL) or 0.0,
    )


def sign_flip_tail(contributions: Floats) -> float:
    """Return the probability that a sum with random signs is at least the sum as it is.

    A sum of turned contributions is at least the observed one if and only if the magnitudes that
    count negatively add up to at most those that do now. Each counts negatively with probability
    1/2, so that the distribution of this subset sum follows from a recursion over contributions.

    Args:
        contributions: (B,) float64.
    """
    size = np.abs(contributions)
    total = size.sum()
    if not total > 0:
        return 1.0

    steps = np.rint(size * (_N_STEPS / total)).astype(np.int64)
    # Sums that are equal but for rounding to the grid count as equal: the rounding errors of B
    # contributions have a standard deviation of sqrt(B / 12) steps.
    slack = int(np.ceil(np.sqrt(len(steps))))
    most = int(steps[contributions < 0].sum()) + slack
    probability = np.zeros(most + 1)
    probability[0] = 1.0

    # The smallest first: the sums of those before it occupy few places.
    reach = 0
    for step in np.sort(steps).tolist():
        occupied = probability[: reach + 1] * 0.5
        probability[: reach + 1] = occupied
        fitting = occupied[: max(0, most + 1 - step)]
        probability[step : step + len(fitting)] += fitting
        reach = min(most, reach + step)

    return min(1.0, float(probability.sum()))
