"""What must be exact is computed in fp32, whatever surrounds it."""

from collections.abc import Iterator

import pytest
import torch

from components.shared.vision.arithmetic import single_precision, use_tf32

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _settings() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("allowed", [True, False])
def test_products_and_convolutions_follow_one_choice(allowed: bool) -> None:
    use_tf32(allowed)
    assert _settings() == (allowed, allowed)
    # What PyTorch's compiler asks, which refuses a mixture of old and new settings.
    assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")


def test_tf32_is_off_inside_and_back_afterwards_also_after_an_error() -> None:
    use_tf32(True)
    inside = []

    def fail() -> None:
        with single_precision(CPU):
            inside.append(_settings())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [(False, False)]
    assert _settings() == (True, True)


def test_autocast_has_no_effect_inside() -> None:
    a = torch.randn(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with single_precision(CPU):
            assert torch.equal(a @ a, torch.mm(a, a))
            assert (a @ a).dtype == torch.float32
