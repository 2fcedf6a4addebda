"""Checks of whether a cluster has what a run of the pipeline needs, with what to do where it has
not.

Nothing is changed, but for one small object that is written to the store and deleted. Every request
is bounded in time, and what these credentials may not look at is unknown, not missing.
"""

from pipelines.doctor.findings import Finding, Status
from pipelines.doctor.run import Where, run_checks

__all__ = ["Finding", "Status", "Where", "run_checks"]
