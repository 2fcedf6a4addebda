"""Signals end a process as an exception that cleans up, and say which signal it was."""

import os
import signal
import subprocess
import sys
import time

import pytest

from components.shared.contracts.interrupts import (
    SIGNALS,
    SignalReceivedError,
    at_interrupt,
    interruptible,
)
from pipelines.sources import ROOT


def _receive(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_an_exception_with_a_shells_exit_code(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible() as interrupts, pytest.raises(SignalReceivedError) as caught:
        _receive(number)
    assert str(caught.value) == f"interrupted by {number.name}"
    assert caught.value.exit_code == 128 + number
    assert interrupts.received is caught.value
    assert isinstance(caught.value, KeyboardInterrupt)  # what cleans up after Ctrl-C does so here
    assert signal.getsignal(number) == before


def test_actions_come_before_the_exception_and_only_inside_their_context() -> None:
    order: list[str] = []
    with (
        interruptible(),
        at_interrupt(lambda: order.append("outer")),
        at_interrupt(lambda: order.append("inner")),
    ):
        with at_interrupt(lambda: order.append("gone")):
            pass
        try:
            _receive(signal.SIGTERM)
        except SignalReceivedError:
            order.append("raised")
    assert order == ["inner", "outer", "raised"]


def test_two_signals_at_once_are_one_request_and_a_later_one_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with interruptible() as interrupts:
        with pytest.raises(SignalReceivedError):
            _receive(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        interrupts.time -= 2
        with pytest.raises(SignalReceivedError):
            _receive(signal.SIGTERM)


def test_what_a_shell_ignores_stays_ignored() -> None:
    """`nohup` ignores SIGHUP, and a shell SIGINT for what it starts in the background."""
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from components.shared.contracts.interrupts import interruptible\n"
        "with interruptible():\n    os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout == "goes on\n"
