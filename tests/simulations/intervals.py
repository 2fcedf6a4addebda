"""Coverage of the 95 % intervals over groups, level of paired differences and calibration tests.

`python -m tests.simulations.intervals [--sets 400] [--plot FILE]` draws data sets of G groups from
populations whose metrics are known, and prints how often the interval contains them, beside the
percentile bootstrap over groups.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from components.shared.policies.policy import sigmoid
from components.shared.stats import calibration_error, metrics, risk_coverage
from components.shared.stats.bootstrap import (
    Statistic,
    intervals,
    membership,
    paired_difference,
    replicates,
)
from components.shared.stats.jackknife import Scale
from components.shared.stats.metrics import Bools, Floats, Integers
from components.shared.stats.miscalibration import calibration_p_value, consistency_bands
