"""Findings of the checks: what is there, what is missing, and what could not be looked at."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from components.shared.contracts.errors import StreetVisionError, one_line
from pipelines.kubeflow.reader import TooManyObjectsError

_FORBIDDEN = re.compile(r'cannot (\w+) resource \\?"([\w./-]+)\\?"')


class Status(StrEnum):
    """Outcome of a check.

    WARNING: a run works, and something should be mended all the same. UNKNOWN: it could not be
    looked at. Neither is a failure.
    """

    OK = "ok"
    WARNING = "warning"
    MISSING = "MISSING"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """Outcome of one check. advice: what to do, "" where there is nothing to do."""

    check: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Passed:
    """What a check returns where a run has what it needs."""

    found: str
    advice: str = ""


Check = Callable[[], Passed]


class CheckError(Exception):
    """Raised by a check that did not pass; `missing`, `warning` and `unknown` make it."""

    def __init__(self, status: Status, found: str, advice: str) -> None:
        super().__init__(found)
        self.status = status
        self.advice = advice


def missing(found: str, advice: str) -> CheckError:
    """Return the error for something that a run needs and that is not there."""
    return CheckError(Status.MISSING, found, advice)


def warning(found: str, advice: str) -> CheckError:
    """Return the error for something that works and should be mended all the same."""
    return CheckError(Status.WARNING, found, advice)


def unknown(found: str, advice: str = "") -> CheckError:
    """Return the error for something that could not be looked at."""
    return CheckError(Status.UNKNOWN, found, advice)


def evaluate(name: str, check: Check) -> Finding:
    """Run one check.

    Whatever it raises on purpose, and every refusal of the cluster, becomes a finding.
    """
    try:
        passed = check()
    except CheckError as error:
        return Finding(name, error.status, str(error), error.advice)
    except TooManyObjectsError as error:
        return from_error(name, error, Status.UNKNOWN)
    except StreetVisionError as error:
        return from_error(name, error)
    except ApiException as error:
        return _refused(name, error)
    except HTTPError as error:
        return Finding(
            name,
            Status.UNKNOWN,
            f"the cluster did not answer ({type(error).__name__})",
            "run this again",
        )

    return Finding(name, Status.OK, passed.found, passed.advice)


def from_error(name: str, error: StreetVisionError, status: Status = Status.MISSING) -> Finding:
    """Return a finding for one of our errors, whose text is "fact; advice"."""
    found, _, advice = one_line(error).partition("; ")
    return Finding(name, status, found, advice)


def forbidden_request(error: ApiException) -> str:
    """Return what a refused request asked for, such as "list nodes".

    "" where the answer does not say.
    """
    found = _FORBIDDEN.search(str(error.body))
    return f"{found[1]} {found[2]}" if found else ""


def _refused(name: str, error: ApiException) -> Finding:
    if error.status == 403:
        request = forbidden_request(error)
        asked = f" ({request})" if request else ""
        return Finding(name, Status.UNKNOWN, f"these credentials may not look{asked}")

    return Finding(
        name,
        Status.UNKNOWN,
        f"HTTP {error.status} {error.reason}",
        "see the Kubernetes API server's log",
    )
