"""The process of a step's container: kfp's executor on the code that the command hands over.

It does what the shell script of `dsl.component` does, in a tenth of the text: a back end repeats a
command in the status of six nodes of the step. For the same reason the store's settings come as one
folder and become variables here, and not as a variable each in the specification of the pod.

The executor's module is part of the command: by its name kfp.local knows a component in Python.
"""

import os
import runpy
import sys
import tempfile
from pathlib import Path

# The component's code follows, and kfp's arguments.
COMMAND = ("python3", "-m", "components.container", "kfp.dsl.executor_main")
# What kfp looks for where it is imported in a container: its package has no decorators there.
IN_CONTAINER = "_KFP_RUNTIME"
# Where the pods have the ConfigMap streetvision-store: a file for each variable.
SETTINGS_FOLDER = Path("/streetvision/store")
_SETTING = "STREETVISION_*"


def main() -> None:
    """Run the executor that the first argument names on the code that is the second one."""
    executor, code, *arguments = sys.argv[1:]
    os.environ[IN_CONTAINER] = "true"
    read_settings(SETTINGS_FOLDER)

    with tempfile.TemporaryDirectory(prefix="streetvision-step-") as folder:
        module = Path(folder, "ephemeral_component.py")
        module.write_text(code, encoding="utf-8")
        sys.argv[1:] = ["--component_module_path", str(module), *arguments]
        runpy.run_module(executor, run_name="__main__", alter_sys=True)


def read_settings(folder: Path) -> None:
    """Make a variable of each setting in `folder`, if it is there, that the environment lacks."""
    for file in sorted(folder.glob(_SETTING)):
        os.environ.setdefault(file.name, file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
