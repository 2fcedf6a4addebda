"""Exact p-values and confidence bounds of a risk, from finite samples.

Arguments broadcast; counts are integers, levels lie in (0, 1). A p-value tests the hypothesis "the
true risk exceeds alpha": if it holds, at most a fraction delta of all samples has a p-value of at
most delta.
"""

import numpy as np
import numpy.typing as npt

from components.shared.stats.metrics import Floats

Counts = npt.NDArray[np.int64] | int


def binomial_p_value(errors: Counts, n_samples: Counts, alpha: float) -> Floats:
    """Return the exact p-value for 0/1 losses, P(Binomial(n, alpha) <= errors); 1 without samples.

    For 0/1 losses it is smaller than the Hoeffding-Bentkus p-value of Bates et al. (J. ACM 2021,
    proposition 3.4), which serves losses in [0, 1].
    """
    from scipy.stats import binom

    return np.asarray(binom.cdf(errors, n_samples, alpha))


def clopper_pearson_upper(errors: Counts, n_samples: Counts, delta: float) -> Floats:
    """Return the exact upper bound of a proportion; 1 without samples.

    The true proportion exceeds the bound in at most a fraction delta of all samples (Clopper and
    Pearson, Biometrika 1934).
    """
    from scipy.stats import beta

    k, n = np.asarray(errors), np.asarray(n_samples)
    # The bound is 1 where every sample is an error; beta.ppf is undefined there.
    below_one = k < n
    bound = beta.ppf(1 - delta, np.where(below_one, k + 1, 1), np.where(below_one, n - k, 1))
    return np.asarray(np.where(below_one, bound, 1.0))


def dkw_one_sided(n_samples: int, delta: float) -> float:
    """Return the largest excess of an empirical distribution function over the true one.

    It holds at all points at once with probability 1 - delta (Dvoretzky, Kiefer, Wolfowitz, with
    the constant of Massart, Annals of Probability 1990).
    """
    return float(np.sqrt(np.log(1 / delta) / (2 * n_samples)))


def fewest_samples(alpha: float, delta: float) -> int:
    """Return the smallest number of error-free samples that certify a risk of at most alpha."""
    # 1e-12: a whole number that rounding has moved upwards.
    return int(np.ceil(np.log(delta) / np.log1p(-alpha) - 1e-12))


_N_BETS = 20


def betting_p_value(excess: Floats, largest: float) -> Floats:
    """Return (J,) p-values of "the mean excess is at least 0", from independent rows (G, J).

    A fixed fraction is bet on each row being negative. The capital in the end, the product of
    1 - bet * row, is on average at most 1 if the hypothesis holds, and so is its mean over several
    bets; by Markov's inequality the inverse is a p-value. It adapts to the variance of the rows
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
    2024, arXiv 2010.09686).

    Args:
        excess: (G, J) float64, each at most `largest`.
        largest: upper limit of any row, above 0.
    """
    bets = np.arange(1, _N_BETS + 1) / (_N_BETS + 1) / largest
    log_capital = np.stack([np.log1p(-bet * excess).sum(axis=0) for bet in bets])
    highest = log_capital.max(axis=0)
    log_mean = highest + np.log(np.exp(log_capital - highest).mean(axis=0))
    return np.asarray(np.exp(-np.maximum(log_mean, 0.0)))
