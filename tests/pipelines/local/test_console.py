"""The log of a local run keeps the steps' lines and loses the documents that kfp prints."""

import io
import logging
from contextlib import redirect_stdout

from pipelines.local.console import readable_log

LOG = """08:00:00.000 - INFO - Executing task \x1b[96m'ingest-dataset'\x1b[0m
08:00:00.001 - INFO - Streamed logs:

    [KFP Executor 2026-01-01 08:00:00,000 INFO]: Got executor_input:
    {
        "inputs": {
            "parameterValues": {"data": "photos"}
        }
    }
    5 samples in 4 groups
    {'None': 3} is what a step prints
08:00:01.000 - INFO - Task 'ingest-dataset' finished with status SUCCESS
08:00:01.000 - INFO - Task 'ingest-dataset' outputs:
    dataset: Artifact( name='dataset',
                       uri='x' )
--------------------------------------------------------------------------------
"""


def test_only_lines_worth_reading_remain() -> None:
    captured = io.StringIO()
    with redirect_stdout(captured), readable_log():
        for start in range(0, len(LOG), 7):  # kfp.local writes in pieces
            print(LOG[start : start + 7], end="")
    assert captured.getvalue().splitlines() == [
        "08:00:00.000 - INFO - Executing task 'ingest-dataset'",
        "    5 samples in 4 groups",
        "    {'None': 3} is what a step prints",
        "08:00:01.000 - INFO - Task 'ingest-dataset' finished with status SUCCESS",
    ]


def test_a_steps_error_is_kept_for_the_one_who_ends_with_it() -> None:
    captured = io.StringIO()
    with redirect_stdout(captured), readable_log() as errors:
        print("    5 of 9 images\n    error: 9 of 9 images are unusable\n    the next line")
    assert captured.getvalue() == "    5 of 9 images\n    the next line\n"
    assert errors == ["9 of 9 images are unusable"]


def test_steps_taken_from_the_cache_are_named() -> None:
    captured = io.StringIO()
    with redirect_stdout(captured), readable_log():
        logging.info("Task ingest-dataset cache hit (key=0123); skipping execution.")
        logging.info("something else")
    assert "Task ingest-dataset cache hit" in captured.getvalue()
    assert "something else" not in captured.getvalue()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_a_step_prints_does_not_act_on_a_terminal() -> None:
    """File names and values of others are among it; the colours of kfp.local stay."""
    terminal = _Terminal()
    with redirect_stdout(terminal), readable_log():
        print("    \x1b[95mred\x1b[0m\tü \x1b]0;title\x07 \x9b2J x")
        print("08:00:00.000 - INFO - Executing task \x1b[96m'evaluate'\x1b[0m")
    assert terminal.getvalue().splitlines() == [
        "    red\tü \\x1b]0;title\\x07 \\x9b2J x",
        "08:00:00.000 - INFO - Executing task \x1b[96m'evaluate'\x1b[0m",
    ]
