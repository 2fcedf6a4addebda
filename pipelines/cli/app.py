"""The command line for the life of the pipeline: `streetvision`, or `python -m pipelines`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.main import get_command

from components.shared.contracts.disk import full_disk
from components.shared.contracts.errors import StreetVisionError, TransientError
from components.shared.contracts.interrupts import Interrupts, SignalReceivedError, interruptible
from components.shared.contracts.redaction import redact_output
from pipelines.cli import (
    cluster,
    drift,
    export,
    labelling,
    local,
    packages,
    promote,
    registry,
    runs,
    schedules,
    score,
    serving,
    sign,
    tuning,
)
from pipelines.cli.help import MODULE, WIDTH, VerbGroup

SCRIPT = "streetvision"  # [project.scripts] of pyproject.toml
_ABOUT = "The stage-1 pipeline: run it here, or compile, upload, run and schedule it in Kubeflow."


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run one verb; every deliberate error is one line.

    The exit code is 42 for an error that a retry cannot help, 2 for an unknown verb or option, and
    128 more than the signal's number for Ctrl-C, SIGTERM and SIGHUP.
    """
    redact_output()
    with interruptible() as interrupts:
        try:
            code = run_verb(arguments)
        except (StreetVisionError, OSError) as error:
            _end_if_interrupted(interrupts)
            _fail(error)
        except typer.TyperException as error:
            print(f"error: {_usage_error(error)}", file=sys.stderr)
            sys.exit(error.exit_code)
        except SignalReceivedError:
            code = None

    _end_if_interrupted(interrupts)
    if code is not None:
        sys.exit(code)


def _fail(error: StreetVisionError | OSError) -> NoReturn:
    """End with the error's line and exit code; raise an unexpected one again."""
    from components.shared.contracts.step import fail

    if isinstance(error, StreetVisionError):
        fail(error)
    if reason := full_disk(error):
        fail(TransientError(reason))
    raise error


def _end_if_interrupted(interrupts: Interrupts) -> None:
    """Say what ended the verb: Typer, or an error that follows from the signal, hides it."""
    if interrupts.received is not None:
        from components.shared.contracts.step import fail

        fail(interrupts.received)


def run_verb(arguments: Sequence[str] | None = None) -> int | None:
    """Parse and run one verb; return the exit code of a help text, else None.

    Raises StreetVisionError of the verb, and typer.TyperException for an unknown verb or option.
    """
    program = program_name()
    code = command(program).main(
        args=None if arguments is None else list(arguments),
        prog_name=program,
        standalone_mode=False,
    )
    return code if isinstance(code, int) else None


def command(program: str) -> Any:
    """Return the tree of verbs.

    A shell completes words after the name of a script only, not after `python -m`.
    """
    app = typer.Typer(
        cls=VerbGroup,
        help=_ABOUT,
        add_completion=program == SCRIPT,
        context_settings={"max_content_width": WIDTH},
        subcommand_metavar="VERB [OPTIONS]...",
    )

    app.callback()(lambda: None)
    for module in (
        local,
        tuning,
        drift,
        score,
        export,
        packages,
        runs,
        schedules,
        promote,
        registry,
        sign,
        serving,
        labelling,
        cluster,
    ):
        app.add_typer(module.app)

    return get_command(app)


def verbs() -> list[list[str]]:
    """Return all verbs as they are typed, each verb before its actions."""
    found = []
    for name, verb in command(MODULE).commands.items():
        found.append([name])
        found += [[name, action] for action in getattr(verb, "commands", {})]
    return found


def program_name() -> str:
    """Return how the command line was called."""
    return SCRIPT if Path(sys.argv[0]).stem == SCRIPT else MODULE


def _usage_error(error: typer.TyperException) -> str:
    """Return the error on one line, with the command that explains the options."""
    context: Any = getattr(error, "ctx", None)
    said = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    for problem in getattr(error.__cause__, "errors", list)():  # pydantic's, for a wrong type
        if repr(problem["input"]) not in said:
            said += f", not {problem['input']!r}"
    command_path = context.command_path if context is not None else program_name()
    return f"{said}; see: {command_path} --help"
