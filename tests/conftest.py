"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
