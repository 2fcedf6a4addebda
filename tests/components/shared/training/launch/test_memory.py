"""The kernel's count of processes that were killed for want of memory."""

from pathlib import Path

import pytest

from components.shared.training.launch import memory


@pytest.mark.parametrize(
    ("content", "count"),
    [("low 0\noom 3\noom_kill 2\n", 2), ("oom_kill 0\n", 0), ("low 1\n\n", None), (None, None)],
)
def test_the_count_is_the_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, count: int | None
) -> None:
    events = tmp_path / "memory.events"
    if content is not None:
        events.write_text(content)
    monkeypatch.setattr(memory, "_EVENTS", events)
    assert memory.n_oom_kills() == count
