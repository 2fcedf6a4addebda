"""Command lines of steps on this machine: no shell, and no text replaced in paths or values.

kfp.local hands a step's inputs and outputs over inside a shell command. It replaces the text
`python3` in every word of that command by the path of the interpreter, unquoted, and looks for
placeholders in the values it has just inserted: a folder with a space ends in "not found", one
named `python3` is written elsewhere. Here, a step is started as its container would start it, from
a list of words.

Read from kfp 2.17.0: local/subprocess_task_handler.py, local/placeholder_utils.py and
local/task_dispatcher.py. The keys of the cache are made before, from the compiled command, and do
not change.
"""

import contextlib
import functools
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.container import COMMAND, IN_CONTAINER
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import PermanentError
from components.shared.contracts.interrupts import SignalReceivedError
from components.shared.contracts.step import write_status
from pipelines import kfp_private
from pipelines.local.step_process import StepProcesses

_WHOLE_INPUT = "{{$}}"


@dataclass(frozen=True)
class StepEnd:
    """How the process of a step ended.

    folder: of its outputs and status.json. code: as `subprocess` has it, negative for a signal.
    inputs: the artifacts that it read.
    """

    folder: Path
    code: int
    inputs: tuple[Path, ...]


@dataclass(frozen=True)
class Steps:
    """The steps of one run, started by the command lines of this module.

    run_folder: exists and belongs to this run alone. temporary: an empty folder outside the
    outputs. descriptors: which a step's process inherits. ended: the steps that have ended so far.
    """

    run_folder: Path
    temporary: Path
    descriptors: tuple[int, ...] = ()
    ended: list[StepEnd] = field(default_factory=list)
    processes: StepProcesses = field(default_factory=StepProcesses)

    @contextlib.contextmanager
    def started_here(self) -> Iterator[None]:
        """Make kfp.local start steps with the command lines of this module, inside the context.

        A signal that asks this process to end ends the steps first.
        """
        with self.processes.ended_by_signals(), contextlib.ExitStack() as changes:
            for module, name, ours in (
                (
                    kfp_private.subprocess_task_handler,
                    "SubprocessTaskHandler",
                    functools.partial(_StepHandler, self),
                ),
                (kfp_private.placeholder_utils, "replace_placeholders", _with_input),
                (
                    kfp_private.executor_input_utils,
                    "get_local_pipeline_resource_name",
                    lambda _: self.run_folder.name,
                ),
            ):
                changes.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, ours)
            yield


class _StepHandler(kfp_private.subprocess_task_handler.SubprocessTaskHandler):
    """A step's process, as kfp.local starts one but for the command line."""

    def __init__(self, steps: Steps, **given: Any) -> None:
        super().__init__(**given)
        self._steps = steps

    def run(self) -> kfp_private.status.Status:
        """Run the step with this process's interpreter; its output goes to standard output."""
        folder, inputs = _folders(self.full_command)
        variables = {
            **os.environ,
            **self.env_vars,
            IN_CONTAINER: "true",
            Variable.STATUS: str(folder / "status.json"),
        }
        code_folder = Path(tempfile.mkdtemp(dir=self._steps.temporary))
        arguments = _arguments(self.full_command, code_folder)
        processes = self._steps.processes
        try:
            code = processes.run(arguments, variables, self._steps.descriptors)
        finally:
            if processes.interrupted:
                _record_interrupt(folder)
        self._steps.ended.append(StepEnd(folder, code, inputs))

        status = kfp_private.status.Status
        return status.SUCCESS if code == 0 else status.FAILURE


def _record_interrupt(folder: Path) -> None:
    """Write the status of a step that was killed before it could, or that had not begun to."""
    status = folder / "status.json"
    if not status.exists():
        write_status(status, folder.name.replace("-", "_"), SignalReceivedError(signal.SIGTERM))


def _arguments(compiled: Sequence[str], folder: Path) -> list[str]:
    """Return the arguments of kfp's executor; the component's code is written into `folder`."""
    n_words = len(COMMAND)
    program, code, arguments = compiled[:n_words], compiled[n_words], compiled[n_words + 1 :]
    if tuple(program) != COMMAND:
        raise PermanentError(
            f"command={' '.join(program)!r} of a step is not that of components/kfp_component.py"
        )

    module = folder / "ephemeral_component.py"
    module.write_text(code, encoding="utf-8")

    return ["--component_module_path", str(module), *arguments]


def _with_input(
    full_command: Sequence[str], executor_input_dict: Mapping[str, Any], **_: Any
) -> list[str]:
    """Put the inputs and outputs where a whole word asks for them; other text stays as it is."""
    document = json.dumps(executor_input_dict)
    return [document if word == _WHOLE_INPUT else word for word in full_command]


def _folders(command: Sequence[str]) -> tuple[Path, tuple[Path, ...]]:
    """Return the folder of a step's outputs, and the artifacts that it reads."""
    document = json.loads(command[list(command).index("--executor_input") + 1])
    artifacts = document.get("inputs", {}).get("artifacts", {}).values()
    inputs = tuple(Path(found["uri"]) for listed in artifacts for found in listed["artifacts"])
    return Path(document["outputs"]["outputFile"]).parent, inputs
