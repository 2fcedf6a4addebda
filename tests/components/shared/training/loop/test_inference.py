"""Inference in batches that become smaller where memory runs out."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from components.shared.contracts.errors import TransientError
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import Positions, infer
from components.shared.vision.arithmetic import use_tf32

WORLD = World(0, 1, torch.device("cpu"))
MESSAGES = (
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a"
    " non-contiguous input.",
    "[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory",
)


class _Limited:
    """Square numbers of at most `memory` rows at a time."""

    def __init__(self, memory: int, error: RuntimeError) -> None:
        self.memory, self.error, self.sizes = memory, error, list[int]()

    def __call__(self, rows: Positions) -> torch.Tensor:
        self.sizes.append(len(rows))
        if len(rows) > self.memory:
            raise self.error
        return torch.from_numpy(rows.astype(np.float32)[:, None]) ** 2


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), *map(RuntimeError, MESSAGES)],
    ids=str,
)
def test_batches_are_halved_until_they_fit_and_stay_small(error: RuntimeError) -> None:
    limited = _Limited(5, error)
    found = infer(limited, 50, WORLD, "", "fp32", batch_size=16)
    assert found[:, 0].tolist() == [float(row**2) for row in range(50)]
    assert sum(size > 5 for size in limited.sizes) == 2  # 13 and 7, of the first batch alone


def test_one_row_that_does_not_fit_is_a_transient_error() -> None:
    with pytest.raises(TransientError, match="out of memory with one image"):
        infer(_Limited(0, torch.OutOfMemoryError("x")), 4, WORLD, "", "fp32")


def test_another_error_is_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        infer(_Limited(0, RuntimeError("shapes differ")), 4, WORLD, "", "fp32")


def test_no_rows_are_an_empty_result_of_the_same_shape() -> None:
    assert infer(_Limited(9, RuntimeError()), 0, WORLD, "", "fp32").shape == (0, 1)


@pytest.fixture
def tf32() -> Iterator[None]:
    """PyTorch as a training with precision=tf32 sets it."""
    use_tf32(True)
    yield
    use_tf32(False)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", (False, False)), ("tf32", (True, False)), ("bf16", (True, True))],
)
def test_fp32_is_exact_in_a_training_with_tf32(
    tf32: None, precision: str, expected: tuple[bool, bool]
) -> None:
    seen = []

    def function(rows: Positions) -> torch.Tensor:
        backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
        seen.append((all(b.allow_tf32 for b in backends), torch.is_autocast_enabled("cpu")))
        assert len({b.allow_tf32 for b in backends}) == 1
        return torch.zeros(len(rows), 1)

    infer(function, 3, WORLD, "", precision)
    assert seen == [expected]
    assert torch.backends.cuda.matmul.allow_tf32, "the training goes on as before"
