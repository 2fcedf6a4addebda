"""Entry points of a phase's `run()`: from a KFP component, or alone from a JSON file.

`run(config, *, dataset: InputDir, checkpoint: OutputDir, ...)` is plain Python on local paths.
`execute` calls it from a KFP component, `main` from `python -m components.<phase>.step
config.json`; both report how the step ended in `status.json` (beside the first output, or where
`STREETVISION_STATUS` says) and end with exit code 42 for permanent errors, 1 for transient ones.
"""

import argparse
import contextlib
import dataclasses
import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.config import (
    Config,
    accepted_values,
    shown_default,
    unknown_keys,
)
from components.shared.contracts.disk import full_disk
from components.shared.contracts.documents import as_type, read_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    PERMANENT_EXIT_CODE,
    TRANSIENT_EXIT_CODE,
    ConfigError,
    StreetVisionError,
    TransientError,
    one_line,
)
from components.shared.contracts.interrupts import SignalReceivedError, interruptible
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.redaction import redact_output

InputDir = Annotated[Path, "input directory"]
InputDirs = Annotated[tuple[Path, ...], "input directories"]
OutputDir = Annotated[Path, "output directory"]
OutputFile = Annotated[Path, "output file"]

Run = Callable[..., Any]

_NUMBER = {True: "a list of paths", False: "one path"}


def execute(run: Run, config: Mapping[str, Any], **artifacts: Any) -> Any:
    """Run a step from its KFP component.

    `config` is a mapping; artifacts (with a `.path`), or lists of them, are given by name. An
    artifact is None where the pipeline does not connect an optional input. Ends the process with
    the error's exit code on failure, after one line on stderr and in status.json.
    """
    redact_output()
    roles = path_parameters(run)
    connected = {name: artifact for name, artifact in artifacts.items() if artifact is not None}

    # Metrics live in metadata and leave no file; kfp.local takes a missing file for an outdated
    # cache entry.
    for name, artifact in connected.items():
        if name not in roles:
            Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
            Path(artifact.path).touch()

    paths = {name: _path_of(artifact) for name, artifact in connected.items() if name in roles}
    config_class = typing.get_type_hints(run)["config"]

    return _run_reporting(run, config_class, config, paths)


def main(run: Run, config_class: type[Config]) -> None:
    """Command line of a step: one JSON file with "config" and the step's "paths"."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {run.__module__ if run.__module__ != '__main__' else _module_name(run)}",
        description=(inspect.getdoc(run) or "").split("\n\n")[0],
        epilog=_describe(run, config_class),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    parser.add_argument("config", type=Path, help='JSON file: {"config": {...}, "paths": {...}}')

    arguments = parser.parse_args()
    redact_output()
    with interruptible():
        try:
            job = _read_job(arguments.config)
            _run_reporting(run, config_class, job.config, job.paths)
        except (ConfigError, SignalReceivedError) as error:
            fail(error)


def path_parameters(run: Run) -> dict[str, str]:
    """Return the names of the step's path parameters with their roles.

    A role is "input directory", "input directories", "output directory" or "output file".
    """
    hints = typing.get_type_hints(run, include_extras=True)
    roles = {name: _role(hint) for name, hint in hints.items() if name not in ("config", "return")}
    return {name: role for name, role in roles.items() if role}


def fail(error: BaseException) -> typing.NoReturn:
    """Print the error as one line and end the process with its exit code."""
    is_typed = isinstance(error, StreetVisionError | SignalReceivedError)
    label = "error" if is_typed else f"unexpected {type(error).__name__}"
    print(f"{label}: {one_line(error)}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(getattr(error, "exit_code", TRANSIENT_EXIT_CODE))


@dataclasses.dataclass(frozen=True)
class _Job:
    """Document of a step that runs alone."""

    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    paths: dict[str, str | list[str]] = dataclasses.field(default_factory=dict)


def _read_job(file: Path) -> _Job:
    document = read_json(file, linked=True, error=ConfigError)
    if isinstance(document, dict):
        keys = [field.name for field in dataclasses.fields(_Job)]
        problems = unknown_keys(document, keys)
        if problems:
            raise ConfigError(f"{file}: {first_of(problems, separator='; ')}")

    return as_type(document, _Job, str(file), error=ConfigError)


def _run_reporting(
    run: Run, config_class: type[Config], values: Mapping[str, Any], paths: Mapping[str, Any]
) -> Any:
    status = _status_file(run, paths)
    try:
        config = config_class.from_mapping(values)
        _check_paths(run, paths)
        result = run(config, **{name: _as_path(path) for name, path in paths.items()})
        _write_status(status, run, None)
    except StreetVisionError as error:
        _report(status, run, error)
        fail(error)
    except BaseException as error:
        reason = full_disk(error)
        if reason:
            full = TransientError(reason)
            _report(status, run, full)
            fail(full)
        _report(status, run, error)
        raise

    return result


def _report(status: Path | None, run: Run, error: BaseException) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the error
        _write_status(status, run, error)


def _write_status(status: Path | None, run: Run, error: BaseException | None) -> None:
    if status is not None:
        write_status(status, _phase(run), error)


def write_status(status: Path, step: str, error: BaseException | None) -> None:
    """Write how a step ended: status.json, whose folder is made."""
    status.parent.mkdir(parents=True, exist_ok=True)

    document: dict[str, Any] = {
        "step": step,
        "state": "succeeded" if error is None else "failed",
    }

    if error is not None:
        permanent = getattr(error, "exit_code", TRANSIENT_EXIT_CODE) == PERMANENT_EXIT_CODE
        document |= {
            "error_class": type(error).__name__,
            "message": one_line(error),
            "permanent": permanent,
        }

    write_json(status, document)


def _path_of(value: Any) -> Any:
    """Of an artifact, or of each of a list of them."""
    return [artifact.path for artifact in value] if isinstance(value, list) else value.path


def _as_path(value: Any) -> Path | tuple[Path, ...]:
    return tuple(Path(path) for path in value) if isinstance(value, list) else Path(value)


def _status_file(run: Run, paths: Mapping[str, Any]) -> Path | None:
    if os.environ.get(Variable.STATUS):
        return Path(os.environ[Variable.STATUS])

    outputs = [
        name
        for name, role in path_parameters(run).items()
        if role.startswith("output") and name in paths
    ]
    return Path(paths[outputs[0]]).parent / "status.json" if outputs else None


def _check_paths(run: Run, paths: Mapping[str, Any]) -> None:
    roles = path_parameters(run)
    parameters = inspect.signature(run).parameters

    required = [name for name in roles if parameters[name].default is inspect.Parameter.empty]
    problems = unknown_keys(paths, list(roles))
    problems += [
        f"paths.{name} is missing ({roles[name]})" for name in required if name not in paths
    ]
    problems += [
        f"paths.{name}={shown(given)} must be {_NUMBER[roles[name] == 'input directories']}"
        for name, given in paths.items()
        if name in roles and isinstance(given, list) != (roles[name] == "input directories")
    ]
    problems += [
        f"paths.{name}={path!r} does not exist"
        for name, given in paths.items()
        for path in (given if isinstance(given, list) else [given])
        if roles.get(name, "").startswith("input") and not _is_folder(path)
    ]
    if problems:
        raise ConfigError(first_of(problems, separator="; "))


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # too long, or in a folder that may not be read
        return False


def _role(hint: Any) -> str | None:
    for candidate in (hint, *typing.get_args(hint)):
        if typing.get_origin(candidate) is Annotated:
            return str(typing.get_args(candidate)[1])
    return None


def _phase(run: Run) -> str:
    return _module_name(run).split(".")[-2]


def _module_name(run: Run) -> str:
    path = Path(inspect.getfile(run)).resolve()
    return f"components.{path.parent.name}.{path.stem}"


def _describe(run: Run, config_class: type[Config]) -> str:
    lines = ["paths:"] + [f"  {name:20} {role}" for name, role in path_parameters(run).items()]
    lines += ["", "config (defaults shown):"]
    for field in dataclasses.fields(config_class):
        values = f" [{accepted_values(field)}]" if accepted_values(field) else ""
        lines.append(f"  {field.name} = {shown_default(config_class, field.name)}{values}")
        lines.append(f"      {field.metadata['help']}")
    return "\n".join(lines)
