"""Fixtures and settings of all tests."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp.dsl import pipeline_task

# Before anything imports torch: two tests run at a time, each on a core of its own, and a thread
# that waits gives its core away.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The suite compares with results of a CPU, on a machine with a GPU too, unless somebody chooses.
os.environ.setdefault("STREETVISION_DEVICE", "cpu")

from components.pretrain_explora import step as pretrain_explora
from components.shared.training.launch import torchrun
from tests.s3 import bucket, s3
from tests.warm_start import WarmStarts

__all__ = ["bucket", "s3"]


def _stack() -> list[tuple[str, ...]]:
    """Of what `inspect.stack` returns, the name of who called the function that asks."""
    return [(), ("", "", "", sys._getframe(2).f_code.co_name)]


# For each setting of a task, kfp reads the source lines of its whole stack, and takes from it the
# caller's name: seconds for a pipeline in a process that has imported torch.
pipeline_task.inspect = SimpleNamespace(stack=_stack)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> None:
    """Let signals arrive that a shell ignores for what it starts in the background."""
    for number, default in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, default)


@pytest.fixture(scope="session")
def warm_starts() -> Iterator[WarmStarts]:
    """Own the process that training processes are forked from; it is started when needed."""
    starts = WarmStarts()
    yield starts
    starts.close()


@pytest.fixture(autouse=True)
def launched_warm(request: pytest.FixtureRequest, warm_starts: WarmStarts) -> Iterator[None]:
    """Fork the training processes of a quick test in place of starting interpreters, on Linux.

    Fixtures of a module or a session are made before this one and start cold.
    """
    if request.node.get_closest_marker("slow") or sys.platform != "linux":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for place in (torchrun, pretrain_explora):
            patch.setattr(place, "subprocess", warm_starts.module)
        yield


def _real(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"real data absent: ../shared/{relative}")
    return path


@pytest.fixture(scope="session")
def gtsdb() -> Path:
    """900 real street scenes with labels.csv; skips where absent."""
    return _real("data/gtsdb")


@pytest.fixture(scope="session")
def real_logits() -> Path:
    """ResNet-110 logits on CIFAR-10 with a published table; skips where absent."""
    return _real("data/logits/resnet110_cifar10.npz")


@pytest.fixture(scope="session")
def dinov2_small() -> Path:
    """Pretrained DINOv2 ViT-S/14 in Hugging Face format; skips where absent."""
    return _real("weights/dinov2-small-imgfocus")
