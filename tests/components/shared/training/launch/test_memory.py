"""What says that memory is exhausted: errors, and the kernel's count of killed processes."""

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


@pytest.mark.parametrize(
    ("error_class", "message", "exhausted"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB", True),
        ("MemoryError", "", True),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("RuntimeError", "CUDA error: device-side assert triggered", False),
        ("ValueError", "shapes differ", False),
    ],
)
def test_an_error_says_whether_memory_is_exhausted(
    error_class: str, message: str, exhausted: bool
) -> None:
    assert memory.says_out_of_memory(error_class, message) is exhausted
