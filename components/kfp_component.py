"""The decorator of the phases' KFP components: a container runs the code that its image has.

`dsl.component` puts the source of a function and a shell script into the command of its container,
and a back end repeats the command in the status of six nodes of the step: a fifth of the Workflow,
which has to stay below 1 MiB. The image has the component's module anyway, so that one import is
enough, and a module in the script's place. The first clause of the function's docstring stays: the
spec has no other place for a component's description.
"""

import inspect
import os
import re
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.container import COMMAND, IN_CONTAINER

_CLAUSE = re.compile(r"[,:;] ")


def component(base_image: str) -> Callable[[Callable[..., None]], Any]:
    """Return a decorator that makes a function a component in a kind of image.

    Inside a container, the function stays as it is: kfp's executor calls it.
    """

    def made(function: Callable[..., None]) -> Any:
        if os.environ.get(IN_CONTAINER) == "true":
            return function

        found = dsl.component(function, base_image=base_image, install_kfp_package=False)
        found.component_spec.implementation.container.command = [*COMMAND, _program(function)]
        return found

    return made


def _program(function: Callable[..., None]) -> str:
    """Return the module that kfp's executor takes the function from."""
    sentence = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    description = _CLAUSE.split(sentence)[0].rstrip(".")
    return f'"""{description}"""\nfrom {function.__module__} import {function.__name__}\n'
