"""A run as text: the lines that `status`, `runs` and `wait` print."""

from datetime import UTC, datetime

from pipelines.kubeflow.run_report import RunReport
from pipelines.kubeflow.run_status import RunState, RunStatus, StepState, StepStatus

_INDENT = "  "
_STATE_WIDTH = 10


def status_lines(report: RunReport, now: datetime) -> list[str]:
    """Return the lines of `status`: the run, each step with its reason, and remarks."""
    run = report.run
    width = max((len(step.name) for step in run.steps), default=0)
    lines = [f"{run.name} ({run.run_id}): {run_line(run, now)}"]

    for step in run.steps:
        lines.append(f"{_INDENT}{step.name:{width}}  {_step_line(step, now)}".rstrip())
        if report.notes.get(step.name):
            lines.append(f"{_INDENT * 3}{report.notes[step.name]}")

    if not any(step.node for step in run.steps) and not run.has_ended:
        lines.append(f"{_INDENT}no step has started")
    for name, reason in report.others.items():
        lines.append(f"{_INDENT}driver of {name}: {reason}")

    return lines + [f"note: {remark}" for remark in report.remarks]


def run_line(run: RunStatus, now: datetime) -> str:
    """Return the state of a run with its time, such as "succeeded in 10 min 32 s"."""
    if run.has_ended:
        took = (
            ""
            if run.seconds is None
            else f" {_PREPOSITIONS[run.state]} {shown_seconds(run.seconds)}"
        )
        return f"{run.state}{took}"

    elapsed = (
        "" if run.created is None else f" for {shown_seconds((now - run.created).total_seconds())}"
    )
    return f"{run.state}{elapsed}" + (
        ", every step has ended: KFP reports the outcome soon" * run.awaits_report
    )


def runs_lines(runs: list[RunStatus], now: datetime) -> list[str]:
    """Return a table of runs: id, start, name, state."""
    width = max((len(run.name) for run in runs), default=0)
    return [
        f"{run.run_id}  {_time(run.created)}  {run.name:{width}}  {run_line(run, now)}"
        for run in runs
    ]


def changes(before: RunReport | None, after: RunReport) -> list[str]:
    """Return a line for each step, and each driver with a reason, whose state has changed.

    A line has name, state and reason.

    That a step waits for those before it is no news, and steps that are skipped share a line.
    """
    known = _states(before) if before is not None else {}
    news = {name: now for name, now in _states(after).items() if known.get(name) != now}
    skipped = [name for name, (state, _) in news.items() if state == StepState.SKIPPED]
    width = max((len(step.name) for step in after.run.steps), default=0)
    lines = [
        f"{name:{width}}  {state:{_STATE_WIDTH}} {note}".rstrip()
        for name, (state, note) in news.items()
        if name not in skipped and (state != StepState.WAITING or note or name in known)
    ]

    return lines + ([f"skipped: {', '.join(skipped)}"] if skipped else [])


def shown_seconds(seconds: float) -> str:
    """Return a duration as a person reads it."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_PREPOSITIONS = {RunState.SUCCEEDED: "in", RunState.FAILED: "after", RunState.CANCELLED: "after"}


def _states(report: RunReport) -> dict[str, tuple[str, str]]:
    states = {
        step.name: (str(step.state), report.notes.get(step.name, "")) for step in report.run.steps
    }
    failed = {driver.name for driver in report.run.failed_drivers}
    drivers = {
        name: ("failed" if name in failed else "waiting", f"driver: {reason}")
        for name, reason in report.others.items()
    }
    return states | drivers


def _step_line(step: StepStatus, now: datetime) -> str:
    seconds = step.seconds
    if seconds is None and step.state == StepState.RUNNING and step.start is not None:
        seconds = (now - step.start).total_seconds()
    took = "" if seconds is None else shown_seconds(seconds)
    several = f"  {step.attempts} attempts" if step.attempts > 1 else ""
    return f"{step.state:{_STATE_WIDTH}} {took:>11}{several}"


def _time(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if time else " " * 19
