"""The smoke test of an installation: what a platform team runs on a cluster after installing.

It uses the cluster as users and accidents do: a run, a run with nothing to do, a schedule, a lost
pod, a killed process, a wrong address. Everything that it makes is archived or deleted; the
artifacts of its runs stay, since KFP's cache leads later runs to them.
"""

from pipelines.smoke.checks import CHECKS
from pipelines.smoke.runner import Result, Row, run_smoke, selected_checks

__all__ = ["CHECKS", "Result", "Row", "run_smoke", "selected_checks"]
