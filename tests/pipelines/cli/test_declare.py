"""A group of options becomes options of a verb, and comes back as one value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import typer
from typer.main import get_command

from pipelines.cli.declare import verb


@dataclass(frozen=True, kw_only=True)
class Paint:
    """A group with every kind of field that the verbs use."""

    TITLE: ClassVar[str] = "Paint"
    NOTE: ClassVar[str] = "Paint dries in an hour."

    colour: str = field(default="red", metadata={"metavar": "NAME", "help": "Colour."})
    second_coat: str | None = field(default=None, metadata={"metavar": "NAME", "help": "Second."})
    swatch: Path | None = field(default=None, metadata={"metavar": "FILE", "help": "Sample."})
    wall: list[str] = field(default_factory=list, metadata={"metavar": "WALL", "help": "Walls."})


@pytest.fixture
def painted() -> tuple[Any, list[Any]]:
    """A command with a group between an argument and a flag, and what it was called with."""
    app, calls = typer.Typer(), []

    @verb(app, "paint", "Rooms", notes="example:\n  paint kitchen")
    def paint(
        room: Annotated[str, typer.Argument(metavar="ROOM", help="The room.")],
        paint: Paint,
        dry: Annotated[bool, typer.Option("--dry", help="Only look.")] = False,
    ) -> None:
        """Paint a room."""
        calls.append((room, paint, dry))

    return get_command(app), calls


def _run(command: Any, *arguments: str) -> None:
    command.main(args=list(arguments), prog_name="paint", standalone_mode=False)


def test_the_fields_of_a_group_are_options(painted: tuple[Any, list[Any]]) -> None:
    command, calls = painted
    _run(command, "kitchen")
    _run(
        command,
        *("--wall", "north", "kitchen", "--colour=blue", "--dry"),
        *("--second-coat", "green", "--swatch", "a.png", "--wall", "south"),
    )
    assert calls == [
        ("kitchen", Paint(), False),
        (
            "kitchen",
            Paint(
                colour="blue", second_coat="green", swatch=Path("a.png"), wall=["north", "south"]
            ),
            True,
        ),
    ]


def test_the_help_has_the_groups_title_and_note(
    painted: tuple[Any, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(painted[0], "--help")
    text = capsys.readouterr().out
    assert "Paint a room." in text
    assert "Paint:\n  --colour NAME       Colour.  [default: red]\n" in text
    assert text.rstrip().endswith("example:\n  paint kitchen\n\nPaint dries in an hour.")


def test_two_groups_with_the_same_option_are_refused() -> None:
    with pytest.raises(ValueError, match="duplicate parameter name"):

        @verb(typer.Typer(), "paint")
        def paint(one: Paint, two: Paint) -> None:
            """Paint twice."""
