"""Help texts: panels in colour on a terminal, plain text of 100 columns in a pipe or a log."""

import sys
from collections import defaultdict
from typing import Any

from typer.core import TyperCommand, TyperGroup

from pipelines.cli.output import ending_quietly

MODULE = "python -m pipelines"  # as examples and remedies name the program
WIDTH = 100


class Verb(TyperCommand):
    """A verb of the command line."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text; the options stand in groups."""
        if _prepare(self, ctx):
            super().format_help(ctx, formatter)
        else:
            _write_plain(self, ctx, formatter)


class VerbGroup(TyperGroup):
    """A group of verbs: the program, or a verb with actions."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text; the verbs stand in groups."""
        if _prepare(self, ctx):
            super().format_help(ctx, formatter)
        else:
            _write_plain(self, ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; a closed output and Ctrl-C end it without a traceback."""
        with ending_quietly():
            return super().invoke(ctx)


def paragraphs(text: str) -> str:
    """Return a text with one line per paragraph; paragraphs with indented lines stay as they are.

    Both kinds of help wrap a paragraph to the width that they have.
    """
    blocks = [block.strip("\n") for block in text.strip().split("\n\n")]
    return "\n\n".join(
        block if "\n  " in block else " ".join(block.split()) for block in blocks if block
    )


def _prepare(command: TyperCommand | TyperGroup, ctx: Any) -> bool:
    """Name the program in examples as it was called; return whether the help may be rich."""
    if command.epilog:
        command.epilog = command.epilog.replace(MODULE, ctx.find_root().info_name)
    rich = sys.stdout.isatty()
    command.rich_markup_mode = "rich" if rich else None
    return rich


def _write_plain(command: TyperCommand | TyperGroup, ctx: Any, formatter: Any) -> None:
    formatter.width = min(formatter.width, WIDTH)
    command.format_usage(ctx, formatter)
    command.format_help_text(ctx, formatter)
    for title, rows in _sections(command, ctx).items():
        with formatter.section(title):
            formatter.write_dl(rows, col_max=28)

    for block in (command.epilog or "").split("\n\n"):
        if not block:
            continue

        formatter.write_paragraph()

        if "\n  " in block:
            formatter.write(f"{block}\n")  # commands, which must stay on one line each
        else:
            formatter.write_text(block)


def _sections(command: TyperCommand | TyperGroup, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return title -> rows of name and help: arguments, options by group, verbs by group."""
    sections: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is not None:
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            sections[getattr(parameter, "rich_help_panel", None) or kind].append(row)

    if isinstance(command, TyperGroup):
        width = max(len(name) for name in command.commands)  # the same column in all sections
        for name, verb in command.commands.items():
            panel = getattr(verb, "rich_help_panel", None) or "Actions"
            sections[panel].append((name.ljust(width), (verb.help or "").partition("\n\n")[0]))

    # The general options of the program and of a verb stand last.
    general = sections.pop("Options", [])

    return {**sections, **({"Options": general} if general else {})}
