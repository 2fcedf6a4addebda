"""Positions are computed once for each size of image, and are the same numbers."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel

from components.shared.models.backbone import exact_tokens, load_backbone, tokens_of
from components.shared.models.positions import bake_positions, cache_positions
from tests.components.shared.models.families import FAMILIES, small

INTERPOLATED = [family for family in FAMILIES if family != "dinov3_vit"]


def pixels(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))


@pytest.fixture
def interpolations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes to which position embeddings are interpolated, in order."""
    sizes: list[tuple[int, ...]] = []
    interpolate = F.interpolate

    def counted(values: torch.Tensor, size: tuple[int, ...], **more: object) -> torch.Tensor:
        sizes.append(tuple(size))
        return interpolate(values, size, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "interpolate", counted)
    return sizes


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_are_the_same_bit_by_bit(family: str, precision: torch.dtype) -> None:
    plain, cached = small(family), small(family)
    cache_positions(cached)
    for size in (56, 98, 42, 98):
        with torch.no_grad(), torch.autocast("cpu", precision, precision != torch.float32):
            assert torch.equal(tokens_of(cached, pixels(size)), tokens_of(plain, pixels(size)))
    assert torch.equal(exact_tokens(cached, pixels(98)), exact_tokens(plain, pixels(98)))
    assert cached.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("family", INTERPOLATED)
def test_each_size_is_interpolated_once(family: str, interpolations: list[tuple[int, ...]]) -> None:
    backbone = small(family).requires_grad_(False)
    cache_positions(backbone)
    for size in (98, 42, 98, 42, 56):
        tokens_of(backbone, pixels(size))
    assert interpolations == [(7, 7), (3, 3)]


def test_rotations_are_computed_once_and_stay_random_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone, calls = small("dinov3_vit"), []
    kind = type(backbone.rope_embeddings)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda *a: calls.append(1) or forward(*a))
    cache_positions(backbone)
    for size in (98, 42, 98):
        tokens_of(backbone, pixels(size))
    assert len(calls) == 2
    backbone.train()
    assert not torch.equal(tokens_of(backbone, pixels(98)), tokens_of(backbone, pixels(98)))


@pytest.mark.parametrize("family", INTERPOLATED)
def test_trained_positions_have_gradients_and_are_computed_anew_after_a_change(
    family: str,
) -> None:
    plain, cached = small(family), small(family)
    cache_positions(cached)
    for model in (plain, cached):
        with torch.no_grad():
            tokens_of(model, pixels(98))
        tokens_of(model, pixels(98)).square().sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.01).step()
    with torch.no_grad():
        assert torch.equal(tokens_of(cached, pixels(98)), tokens_of(plain, pixels(98)))


def test_a_copy_has_positions_of_its_own() -> None:
    backbone = small("dinov2")
    cache_positions(backbone)
    with torch.no_grad():
        before = tokens_of(backbone, pixels(98))
        other = copy.deepcopy(backbone)
        other.embeddings.position_embeddings.zero_()
        assert not torch.equal(tokens_of(other, pixels(98)), before)
        assert torch.equal(tokens_of(backbone, pixels(98)), before)


def test_what_inference_mode_computed_can_be_trained_with() -> None:
    backbone = small("dinov2")
    cache_positions(backbone)
    backbone.embeddings.position_embeddings.requires_grad_(False)
    with torch.inference_mode():
        tokens_of(backbone, pixels(98))
    tokens_of(backbone, pixels(98)).square().sum().backward()


@pytest.mark.parametrize("size", [98, 100, 42])
@pytest.mark.parametrize("family", FAMILIES)
def test_baked_positions_give_the_same_numbers_without_interpolation(
    family: str, size: int, tmp_path: Path, interpolations: list[tuple[int, ...]]
) -> None:
    plain, baked = small(family), small(family)
    bake_positions(baked, size)
    with torch.no_grad():
        expected = tokens_of(plain, pixels(size))
        interpolations.clear()
        assert torch.equal(tokens_of(baked, pixels(size)), expected)

    # As the project loads it, and as transformers does.
    baked.save_pretrained(tmp_path)
    stock: PreTrainedModel = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for model in (load_backbone(tmp_path), stock):
            assert torch.equal(tokens_of(model, pixels(size)), expected)
        if family == "vit":  # whose stock pipeline never interpolates
            assert torch.equal(stock(pixel_values=pixels(size)).last_hidden_state, expected)
    assert not interpolations


@pytest.mark.parametrize("family", INTERPOLATED)
def test_baked_positions_are_trained_without_a_kernel_that_has_no_order(
    family: str, interpolations: list[tuple[int, ...]]
) -> None:
    backbone = small(family)
    bake_positions(backbone, 98)
    interpolations.clear()
    tokens_of(backbone, pixels(98)).square().sum().backward()
    gradient = backbone.embeddings.position_embeddings.grad
    assert gradient is not None
    assert gradient.shape[1] == 7 * 7 + 1
    assert bool(gradient.any())
    assert not interpolations
