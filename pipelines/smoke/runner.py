"""The order of the checks, the table of their results, and the clean-up after them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from components.shared.contracts.errors import ConfigError, StreetVisionError, one_line
from pipelines.exit_codes import INTERRUPTED
from pipelines.smoke.backend import Backend, NotAllowedError
from pipelines.smoke.checks import CHECKS, Checks
from pipelines.smoke.cleanup import CleanUp
from pipelines.smoke.waiting import Waiting

# What a check cannot do without. demo-data may be skipped where an earlier call left the demo in
# the store.
_NEEDS = {"second-run": ("demo-data", "run")}
_NEED_OF_ALL = ("demo-data",)


class Result(StrEnum):
    """Outcome of a check.

    SKIPPED: it could not be made, which is no failure of the installation.
    """

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    check: str
    result: Result
    seconds: float
    remark: str

    def __str__(self) -> str:
        return f"{self.check:16}{self.result:9}{self.seconds:7.0f}  {self.remark}"


HEADER = f"{'check':16}{'result':9}{'seconds':>7}  remark"


def selected_checks(only: str, skip: str) -> list[str]:
    """Return the checks to make, in their order, with those that the wanted ones cannot do without.

    only, skip: names with commas between, "" for none. Raises ConfigError.
    """
    wanted, unwanted = _names("--only", only), _names("--skip", skip)
    selected = [name for name in CHECKS if name not in unwanted and (not wanted or name in wanted)]
    if "second-run" in selected and "run" in unwanted:
        raise ConfigError("--skip run: second-run repeats it; skip second-run as well")
    needed = {
        need for name in selected for need in _NEEDS.get(name, _NEED_OF_ALL) if need not in unwanted
    }
    return [name for name in CHECKS if name in selected or name in needed]


def run_smoke(
    backend: Backend, names: Sequence[str], waiting: Waiting, *, delete_data: bool = False
) -> int:
    """Make the checks, print a row for each as it ends, and clean up, whatever happens.

    Return the exit code.

    0 where none failed, 1 where one did, 130 after Ctrl-C, 143 after SIGTERM.
    """
    checks = Checks(backend, waiting)
    results: dict[str, Result] = {}
    print(HEADER, flush=True)

    try:
        for row in _rows(checks, names, waiting.clock.now, results):
            print(row, flush=True)
    except KeyboardInterrupt as interrupt:
        print("interrupted; cleaning up", file=sys.stderr, flush=True)
        return getattr(interrupt, "exit_code", INTERRUPTED)
    finally:
        try:
            for line in CleanUp(checks.made, backend, waiting).run(delete_data=delete_data):
                print(line, flush=True)
        except KeyboardInterrupt:
            print(
                f"clean-up interrupted; what is left has {checks.token} in its name",
                file=sys.stderr,
            )

    return 1 if Result.FAILED in results.values() else 0


def _rows(
    checks: Checks, names: Sequence[str], now: Callable[[], float], results: dict[str, Result]
) -> Iterator[Row]:
    for name in names:
        needs = [
            need
            for need in _NEEDS.get(name, _NEED_OF_ALL)
            if results.get(need, Result.OK) != Result.OK
        ]
        if needs:
            results[name] = Result.SKIPPED
            yield Row(name, Result.SKIPPED, 0, f"it needs {needs[0]}")
            continue

        started = now()
        results[name], remark = _result(CHECKS[name], checks)
        yield Row(name, results[name], now() - started, remark)


def _result(check: Callable[[Checks], str], checks: Checks) -> tuple[Result, str]:
    try:
        return Result.OK, check(checks)
    except NotAllowedError as error:
        return Result.SKIPPED, one_line(error)
    except StreetVisionError as error:
        return Result.FAILED, one_line(error)
    except Exception as error:  # the other checks are worth their rows
        return Result.FAILED, f"unexpected {type(error).__name__}: {one_line(error)}"


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise ConfigError(f"{option} {unknown[0]!r} is no check; there are: {', '.join(CHECKS)}")
    return names
