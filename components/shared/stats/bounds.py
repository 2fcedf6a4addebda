"""How surely does a sample show that a risk is at most alpha? p-values and confidence bounds of
finite samples.

Arguments broadcast; counts are integers, levels lie in (0, 1). A p-value tests "the true risk
exceeds alpha": at most delta of all samples from such a population give one of at most delta.
"""

import numpy as np
import numpy.typing as npt

from components.shared.stats.metrics import Floats

Counts = npt.NDArray[np.int64] | int


def binomial_p_value(errors: Counts, n_samples: Counts, alpha: float) -> Floats:
    """Exact p-value for 0/1 losses: P(Binomial(n, alpha) <= errors). 1 without samples."""
    from scipy.stats import binom

    return np.asarray(binom.cdf(errors, n_samples, alpha))


def hoeffding_bentkus_p_value(mean: Floats | float, n_samples: Counts, alpha: float) -> Floats:
    """p-value for losses in [0, 1] from their mean (Bates et al., "Distribution-free,
    risk-controlling prediction sets", J. ACM 2021, prop. 3.4). For 0/1 losses the exact one is
    smaller."""
    from scipy.stats import binom

    r, n = np.minimum(mean, alpha), np.asarray(n_samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(r > 0, r * np.log(r / alpha), 0.0)
        divergence = first + (1 - r) * np.log((1 - r) / (1 - alpha))
    # 1e-9: n * mean is a whole number of errors that rounding may have moved across it.
    bentkus = np.e * binom.cdf(np.ceil(n * np.asarray(mean) - 1e-9), n, alpha)
    return np.asarray(np.minimum(1.0, np.minimum(np.exp(-n * divergence), bentkus)))


def clopper_pearson_upper(errors: Counts, n_samples: Counts, delta: float) -> Floats:
    """Exact upper bound of a proportion: exceeded by the truth in at most delta of all samples. 1
    without samples.
    """
    from scipy.stats import beta

    k, n = np.asarray(errors), np.asarray(n_samples)
    inside = k < n
    bound = beta.ppf(1 - delta, np.where(inside, k + 1, 1), np.where(inside, n - k, 1))
    return np.asarray(np.where(inside, bound, 1.0))


def clopper_pearson_interval(hits: int, n_samples: int, level: float) -> tuple[float, float]:
    """Exact two-sided interval of a proportion: where a bootstrap sees no variation, this one still
    has a width.
    """
    delta = (1 - level) / 2
    upper = float(clopper_pearson_upper(hits, n_samples, delta))
    return 1 - float(clopper_pearson_upper(n_samples - hits, n_samples, delta)), upper


def dkw_one_sided(n_samples: int, delta: float) -> float:
    """The most by which an empirical distribution exceeds the true one anywhere, except in delta of
    all samples.

    Dvoretzky, Kiefer, Wolfowitz, with Massart's constant (1990).
    """
    return float(np.sqrt(np.log(1 / delta) / (2 * n_samples)))


def fewest_samples(alpha: float, delta: float) -> int:
    """The fewest samples that can certify alpha at all: those without a single error."""
    return int(np.ceil(np.log(delta) / np.log1p(-alpha) - 1e-12))
