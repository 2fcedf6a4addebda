"""Paragraphs of help texts are wrapped by the reader's width, commands are not."""

from pipelines.cli.help import paragraphs


def test_prose_is_one_line_per_paragraph_and_commands_stay() -> None:
    text = """
One sentence
over two lines.

examples:
  first command
  second command


Another paragraph.
"""
    assert paragraphs(text) == (
        "One sentence over two lines.\n\nexamples:\n  first command\n  second command\n\n"
        "Another paragraph."
    )
    assert paragraphs("\n") == ""
