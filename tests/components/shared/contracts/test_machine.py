"""The cores that a process may use, also where the system cannot limit them."""

import os

import pytest

from components.shared.contracts.machine import n_usable_cores


def test_the_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 6}, raising=False)
    assert n_usable_cores() == 3


def test_macos_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert n_usable_cores() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert n_usable_cores() == 1
