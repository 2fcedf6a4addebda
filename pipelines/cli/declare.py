"""Declaration of verbs: a parameter that is a group of options becomes one option per field.

Typer reads the options of a verb from its signature. A group is declared once and shared by many
verbs: a dataclass with a TITLE, whose fields have `metavar` and `help` as metadata. A group's NOTE,
if any, stands below the help of every verb that has it.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from pipelines.cli.help import Verb, paragraphs

# Titles of the groups of verbs.
LOCAL, PACKAGES, RUNS, CLUSTER = "Local", "Images and packages", "Kubeflow runs", "Cluster"
CHAMPION = "Champion and registry"

Function = Callable[..., None]


def verb(
    app: typer.Typer, name: str, panel: str | None = None, *, notes: str = ""
) -> Callable[[Function], Function]:
    """Add the decorated function to `app` as a verb.

    Its docstring is the verb's help, `notes` stand below the options: examples, exit codes,
    environment.
    """

    def declare(function: Function) -> Function:
        flat, groups = _flattened(function)
        about = [notes, *(getattr(group, "NOTE", "") for group in groups)]
        epilog = paragraphs("\n\n".join(text.strip("\n") for text in about))
        app.command(name, cls=Verb, rich_help_panel=panel, epilog=epilog)(flat)
        return function

    return declare


def _flattened(function: Function) -> tuple[Function, list[Any]]:
    """Return the function with one parameter per option, and its groups."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if dataclasses.is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _options_of(kind)
        else:
            parameters.append(
                parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            )

    @functools.wraps(function)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            fields = {field.name: given.pop(field.name) for field in dataclasses.fields(group)}
            given[name] = group(**fields)
        function(**given)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}

    return flat, list(groups.values())


def _options_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group)
    parameters = []
    for field in dataclasses.fields(group):
        option = typer.Option(
            f"--{field.name.replace('_', '-')}",
            metavar=field.metadata["metavar"] or None,
            help=field.metadata["help"],
            rich_help_panel=group.TITLE,
        )

        listed = field.default_factory is not dataclasses.MISSING
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=[] if listed else field.default,
                annotation=Annotated[hints[field.name], option],
            )
        )

    return parameters
