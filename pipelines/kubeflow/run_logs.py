"""What a step wrote: which lines are worth reading, and which one is the reason of its failure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from components.shared.storage import Store

_KEY = re.compile(r".*/executor-logs-(\d+)")
_EXECUTOR_LINE = re.compile(r"\[KFP Executor [^]]* INFO\]")
_DUMP_BEGINS = re.compile(r".* INFO\]: Got executor_input:")
_DUMP_ENDS = "}"
# components/shared/contracts/step.py ends a step with one of these; one that stands earlier was
# survived.
_TYPED = re.compile(r"(error: |unexpected \w+: ).")
_MOST_AFTER_TYPED = 5
# The header of glog, in which KFP's driver and launcher write: severity, date, time, thread, file
# and line.
_GLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [^]]+\] (.*)")
_GLOG_FATAL = re.compile(r"F\d{4} ")
_LONGEST = 1000


@dataclass(frozen=True)
class StoredLog:
    """A log in the object store. attempt: 0 for the first pod of the step."""

    key: str
    attempt: int


def stored_logs(store: Store, bucket: str, folder: str) -> list[StoredLog]:
    """Return the logs below a step's folder, first attempt first.

    KFP's launcher writes `<folder>/<execution>/executor-logs-<attempt>` at the end of a pod,
    whether it failed or not (backend/src/v2/component/launcher_v2.go, qualifyExecutorLogsURI); a
    pod that was killed leaves none.
    """
    found = [(_KEY.fullmatch(item.key), item.key) for item in store.list(bucket, folder)]
    return sorted(
        (StoredLog(key, int(match[1])) for match, key in found if match),
        key=lambda log: (log.attempt, log.key),
    )


def readable(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that a step itself wrote.

    KFP's remarks and its dump of inputs are left out; of a progress bar the last state remains.
    """
    in_dump = False
    for line in lines:
        shown = line.rstrip("\n").rstrip("\r").rpartition("\r")[2]
        if in_dump:
            in_dump = shown != _DUMP_ENDS
        elif _EXECUTOR_LINE.match(shown):
            in_dump = bool(_DUMP_BEGINS.match(shown))
        else:
            yield shown


def failure_message(lines: Iterable[str]) -> str:
    """Return the reason of a failure, or "".

    The last typed line, else glog's fatal line, else the last line.
    """
    written = [line for line in readable(lines) if line.strip()]
    typed = [line for line in written[-_MOST_AFTER_TYPED:] if _TYPED.match(line)]
    fatal = [line for line in written if _GLOG_FATAL.match(line)]
    if typed or fatal:
        return _end(_without_header((typed or fatal)[-1]))

    return (
        _end(f"ended without a reason; its last line: {_without_header(written[-1])}")
        if written
        else ""
    )


def _without_header(line: str) -> str:
    found = _GLOG.fullmatch(line.strip())
    return found[1] if found else line.strip()


def _end(text: str) -> str:
    return text if len(text) <= _LONGEST else "... " + text[-_LONGEST:]
