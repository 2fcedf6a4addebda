"""Command lines of steps on this machine: no shell, and no text replaced in paths or values.

kfp.local hands a step's inputs and outputs over inside a shell command. It replaces the text
`python3` in every word of that command by the path of the interpreter, unquoted, and looks for
placeholders in the values it has just inserted: a folder with a space ends in "not found", one
named `python3` is written elsewhere. Here, a step is started as kfp's script would start it, from a
list of words.

Read from kfp 2.17.0: local/subprocess_task_handler.py, local/placeholder_utils.py,
local/task_dispatcher.py and dsl/component_factory.py. The keys of the cache are made before, from
the compiled command, and do not change.
"""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.shared.contracts.errors import PermanentError
from pipelines import kfp_private

# What the compiler writes for a component that installs no packages; the component's code and
# arguments follow it.
_SCRIPT = """
program_path=$(mktemp -d)
printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main \
    --component_module_path "$program_path/ephemeral_component.py" "$@"
"""
_WHOLE_INPUT = "{{$}}"


@contextlib.contextmanager
def own_command_lines() -> Iterator[None]:
    """Make kfp.local start steps with the command lines of this module, inside the context."""
    handlers, placeholders = kfp_private.subprocess_task_handler, kfp_private.placeholder_utils
    handler, replace = handlers.SubprocessTaskHandler, placeholders.replace_placeholders
    handlers.SubprocessTaskHandler = _StepHandler
    placeholders.replace_placeholders = _with_input

    try:
        yield
    finally:
        handlers.SubprocessTaskHandler = handler
        placeholders.replace_placeholders = replace


class _StepHandler(kfp_private.subprocess_task_handler.SubprocessTaskHandler):
    """A step's process, as kfp.local starts one but for the command line."""

    def run(self) -> kfp_private.status.Status:
        """Run the step with this process's interpreter; its output goes to standard output."""
        status = kfp_private.status.Status
        with tempfile.TemporaryDirectory(prefix="streetvision-step-") as folder:
            code = kfp_private.subprocess_task_handler.run_local_subprocess(
                full_command=_command(self.full_command, Path(folder)),
                env_vars={**self.env_vars, "_KFP_RUNTIME": "true"},
            )

        return status.SUCCESS if code == 0 else status.FAILURE


def _command(compiled: Sequence[str], folder: Path) -> list[str]:
    """Return the words that run a compiled component; its code is written into `folder`."""
    shell, script, code, arguments = compiled[:2], compiled[2], compiled[3], compiled[4:]
    if list(shell) != ["sh", "-ec"] or script.split() != _SCRIPT.split():
        raise PermanentError(
            f"command={script!r} of a step is not what kfp {kfp_private.VERSION} compiles without"
            " packages"
        )

    module = folder / "ephemeral_component.py"
    module.write_text(code, encoding="utf-8")
    start = [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(module)]

    return [*start, *arguments]


def _with_input(
    full_command: Sequence[str], executor_input_dict: Mapping[str, Any], **_: Any
) -> list[str]:
    """Put the inputs and outputs where a whole word asks for them; other text stays as it is."""
    document = json.dumps(executor_input_dict)
    return [document if word == _WHOLE_INPUT else word for word in full_command]
