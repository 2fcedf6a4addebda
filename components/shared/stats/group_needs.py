"""Numbers of groups that calibrators, policies and intervals need, before anything is trained."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from components.shared.stats.bounds import fewest_samples

CROSS_FITTING_GROUPS = 2  # of each class, for calibrators
# Of VAL_TEST. Also jackknife.MIN_GROUPS, which is not imported: the split, and with it all that is
# trained, would run again with that module.
INTERVAL_GROUPS = 16


@dataclass(frozen=True)
class Need:
    """One requirement.

    purpose: what for; unit: which groups; needs and has: at least, and in the split; otherwise:
    what follows where there are fewer.
    """

    purpose: str
    unit: str
    needs: int
    has: int
    otherwise: str = "infeasible"

    @property
    def met(self) -> bool:
        """Whether there are enough groups; a policy may need more, as it makes errors."""
        return self.has >= self.needs

    def line(self) -> str:
        """Return the requirement as one line, with what follows where it is not met."""
        verdict = "" if self.met else f": will be {self.otherwise}"
        return f"{self.purpose}: {self.has} {self.unit}, at least {self.needs} needed{verdict}"


def n_tested_groups(n_groups: int, tuning_fraction: float) -> int:
    """Return how many of VAL_CALIB's groups test a policy, the others tune it."""
    return n_groups - min(max(round(tuning_fraction * n_groups), 2), max(n_groups - 2, 0))


def calibrator_needs(groups_per_class: Mapping[str, int]) -> list[Need]:
    """Return the need of calibrators, by class name -> groups in VAL_CALIB; the rarest class."""
    name = min(groups_per_class, key=lambda key: groups_per_class[key])
    unit = f"groups of class {name} in VAL_CALIB (its rarest)"
    return [Need("calibrators", unit, CROSS_FITTING_GROUPS, groups_per_class[name])]


def policy_need(
    name: str, n_groups: int, tuning_fraction: float, alpha: float, delta: float
) -> Need:
    """Return what a policy needs to certify a risk of `alpha` with confidence 1 - `delta`.

    Args:
        name: name of the policy or policies.
        n_groups: groups of VAL_CALIB.
        tuning_fraction: fraction of them that is not tested.
        alpha: the risk.
        delta: probability with which the guarantee on it may fail.
    """
    return Need(
        f"{name} at alpha={alpha:g}, delta={delta:g}",
        "independent groups in VAL_CALIB",
        fewest_samples(alpha, delta),
        n_tested_groups(n_groups, tuning_fraction),
    )


def interval_need(n_groups: int) -> Need:
    """Return what intervals need of VAL_TEST's `n_groups`."""
    return Need("intervals of metrics", "groups in VAL_TEST", INTERVAL_GROUPS, n_groups, "left out")


def least_certifiable(n_tested: int, delta: float) -> float:
    """Return the least risk that `n_tested` groups certify, if none of them is an error."""
    return float(-np.expm1(np.log(delta) / n_tested)) if n_tested else 1.0
