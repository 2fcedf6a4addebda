"""Checks of what a cluster needs to run the pipeline, each with its remedy.

Nothing is changed, but for one small object that is written to the store and deleted. Every request
is bounded in time, and what these credentials may not look at is unknown, not missing.
"""

from pipelines.doctor.findings import Finding, Status
from pipelines.doctor.run import Where, run_checks

__all__ = ["Finding", "Status", "Where", "run_checks"]
