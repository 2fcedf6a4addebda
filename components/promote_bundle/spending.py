"""Levels of a series of comparisons, spent from one budget for wrong promotions.

VAL_TEST serves every comparison, so that a series of fair tests at 5 % each promotes an equal model
within weeks. Here the n-th comparison is tested at the level `budget (n^-1/2 - (n+1)^-1/2)`. All
levels add up to the budget, however long the series lasts; after n comparisons
`budget / sqrt(n + 1)` is left. By the union bound the budget limits the probability of any wrong
promotion, and the expected number of them.

This is alpha spending (Lan and DeMets, Biometrika 1983), without a planned end. The ladder (Blum
and Hardt, ICML 2015) was the alternative. It promises that the best published score stays close to
the true one, even against people who adapt to every answer, and pays with steps of the order
(ln(k m) / m)^1/3 for k comparisons on m samples: .4 for 500 on 200. Its form without parameters
promotes what is better by one standard error, which an equal model is in a sixth of all
comparisons. Neither limits wrong promotions.
`python -m tests.simulations.promotion` has both as a table.
"""

from math import sqrt


def level(number: int, budget: float) -> float:
    """Return the level of comparison `number`, from 1, of a series with this budget."""
    return budget * (1 / sqrt(number) - 1 / sqrt(number + 1))


def remaining(number: int, budget: float) -> float:
    """Return what is left of the budget after `number` comparisons."""
    return budget / sqrt(number + 1)
