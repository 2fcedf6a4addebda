"""How do a configuration's help texts reach the KFP UI?"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import TypeVar

from components.shared.config import Config

F = TypeVar("F", bound=Callable[..., object])


def documented(*config_classes: type[Config]) -> Callable[[F], F]:
    """Append an `Args:` section made from the fields' help to a component's or pipeline's docstring; KFP reads it."""

    def decorate(function: F) -> F:
        helps = {field.name: field.metadata["help"] for cls in config_classes for field in dataclasses.fields(cls)}
        lines = [f"    {name}: {helps[name]}" for name in inspect.signature(function).parameters if name in helps]
        function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
        return function

    return decorate
