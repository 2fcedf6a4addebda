"""What calibrators, policies and intervals need of a split, at several levels of risk.

The split does not know the options of later phases: each of them would be in its cache key, and
another alpha would train again. So it lists the levels below at the default delta and
tuning_fraction, and prints that of the default alpha. `configure`, which knows the options, says it
for them as soon as the lineage has recorded the split.
"""

from collections.abc import Mapping, Sequence

from components.shared.stats.group_needs import (
    Need,
    calibrator_needs,
    interval_need,
    least_certifiable,
    n_tested_groups,
    policy_need,
)
from components.split_dataset.balance import Counts

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2)
ALPHA, DELTA, TUNING_FRACTION = 0.05, 0.1, 0.3  # defaults of the policies; a test compares them
_POLICIES = "gate and scrc"
_CALIB = 2


def default_needs(
    class_names: Sequence[str], group_counts: Counts, n_groups: Mapping[str, int]
) -> list[Need]:
    """Return all needs at the defaults of the later phases.

    Args:
        class_names: (K,) names.
        group_counts: (4, K) int64, groups of each split that have the class.
        n_groups: split -> groups.
    """
    per_class = dict(zip(class_names, group_counts[_CALIB].tolist(), strict=True))
    n_calib = n_groups["VAL_CALIB"]
    return [
        *calibrator_needs(per_class),
        *(policy_need(_POLICIES, n_calib, TUNING_FRACTION, alpha, DELTA) for alpha in LEVELS),
        interval_need(n_groups["VAL_TEST"]),
    ]


def printed(needs: Sequence[Need], n_calib_groups: int) -> list[str]:
    """Return the lines for the log: of the policies' levels, the default one alone.

    Args:
        needs: all needs.
        n_calib_groups: groups of VAL_CALIB.
    """
    n_tested = n_tested_groups(n_calib_groups, TUNING_FRACTION)
    default = policy_need(_POLICIES, n_calib_groups, TUNING_FRACTION, ALPHA, DELTA)
    level = least_certifiable(n_tested, DELTA)
    lines = [
        need.line() for need in needs if need == default or not need.purpose.startswith(_POLICIES)
    ]
    return [*lines, f"least alpha that {n_tested} groups without an error certify: {level:.3f}"]
