"""Blocks compute the same in every way, and nothing else of the model changes."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel, modeling_utils

from components.pretrain_explora.explora import prepare_explora
from components.shared.contracts.options import BackboneLoopConfig
from components.shared.models import adapters, blocks
from components.shared.models.backbone import exact_tokens, load_backbone, tokens_of
from components.shared.models.blocks import prepare_blocks
from components.shared.training.launch.heartbeat import Heartbeat
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import in_batches
from tests.components.shared.models.families import FAMILIES, small

PIXELS = torch.linspace(-1, 1, 3 * 3 * 56 * 56).view(3, 3, 56, 56)
WAYS: list[dict[str, Any]] = [
    {"attention": "eager"},
    {"gradient_checkpointing": True},
    {"compile": "default"},
    {"compile": "max-autotune", "gradient_checkpointing": True},
]


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Stand for the compiler: blocks are traced as for it, but run as they are, in milliseconds.

    The slow test compiles.
    """
    compiler = torch.compile

    def compile_eagerly(function: Callable[..., Any], mode: str) -> Any:
        return compiler(function, backend="eager")

    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(torch, "compile", compile_eagerly)
    blocks._compiled.cache_clear()
    yield
    blocks._compiled.cache_clear()
    torch.compiler.reset()


def _gradients(model: nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    tokens_of(model, pixels).square().sum().backward()  # type: ignore[arg-type, no-untyped-call]
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def _assert_same(one: nn.Module, two: nn.Module) -> None:
    with torch.no_grad():
        expected = tokens_of(two, PIXELS)  # type: ignore[arg-type]
        torch.testing.assert_close(tokens_of(one, PIXELS), expected, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    for size in (3, 2):
        ours, theirs = _gradients(one, PIXELS[:size]), _gradients(two, PIXELS[:size])
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "way"),
    [
        *((family, way) for family in FAMILIES for way in WAYS[:2]),
        *((family, WAYS[2]) for family in ("dinov2", "dinov3_vit")),
        ("dinov2", WAYS[3]),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_the_same(family: str, way: dict[str, Any]) -> None:
    plain = adapters.prepare(small(family), "lora", rank=2, alpha=4.0)
    other = copy.deepcopy(plain)
    prepare_blocks(other, BackboneLoopConfig(precision="fp32", **way))
    _assert_same(other, plain)
    assert list(other.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("way", WAYS[1:3], ids=str)
def test_copies_adapters_and_stored_models_are_not_affected(
    way: dict[str, Any], tmp_path: Path
) -> None:
    model = adapters.prepare(small("dinov2"), "lora", rank=2, alpha=4.0)
    prepare_blocks(model, BackboneLoopConfig(precision="fp32", **way))

    # A copy, as of a teacher, computes with weights of its own.
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        before = tokens_of(model, PIXELS)
        for parameter in teacher.parameters():
            parameter.mul_(1.5)
        assert not torch.allclose(tokens_of(teacher, PIXELS), before)
        assert torch.equal(tokens_of(model, PIXELS), before)

        merged = adapters.merge(model, PIXELS[:1])
        merged.save_pretrained(tmp_path)
        assert "attn" not in (tmp_path / "config.json").read_text()
        torch.testing.assert_close(
            tokens_of(load_backbone(tmp_path), PIXELS), before, rtol=1e-4, atol=1e-5
        )


def test_blocks_that_explora_unfreezes_are_recomputed_too() -> None:
    model = prepare_explora(small("dinov2", 3), rank=2, alpha=2.0, unfrozen_blocks=1)
    plain = copy.deepcopy(model)
    prepare_blocks(model, BackboneLoopConfig(gradient_checkpointing=True))
    _assert_same(model, plain)


def test_recomputation_keeps_less_for_the_backward_pass() -> None:
    kept = []
    for checkpointing in (False, True):
        model = small("dinov2", 4)
        prepare_blocks(model, BackboneLoopConfig(gradient_checkpointing=checkpointing))
        stored: list[int] = []

        def count(tensor: torch.Tensor, stored: list[int] = stored) -> torch.Tensor:
            stored.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            tokens_of(model, PIXELS)
        kept.append(sum(stored))
    assert kept[1] < 0.5 * kept[0]


def test_signs_of_life_come_from_compiled_blocks_too(tmp_path: Path) -> None:
    class Counting(Heartbeat):
        seen = 0

        def record(self, rank: int, step: int | None = None, *, waiting: bool = False) -> None:
            self.seen += 1

    heartbeat = Counting(tmp_path / "heartbeat", 1)
    model = small("dinov2", 3).requires_grad_(False)
    prepare_blocks(model, BackboneLoopConfig(compile="default"))
    World(0, 1, torch.device("cpu"), heartbeat).record_within(model)
    for passes in (1, 2, 3):
        tokens_of(model, PIXELS)
        assert heartbeat.seen == 3 * passes


def test_nothing_is_replaced_where_nothing_is_asked() -> None:
    model = small("dinov2")
    prepare_blocks(model, BackboneLoopConfig())
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Stand for the package flash-attn, as transformers calls it: half precision, or an error.

    Returns the precisions of the values that it was called with. The products are sdpa's.
    """
    called: list[torch.dtype] = []

    def attention(module: nn.Module, *tensors: Any, **named: Any) -> Any:
        query, key, value, *rest = tensors
        if query.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
            query, key, value = (part.to(torch.bfloat16) for part in (query, key, value))
        called.append(value.dtype)
        if query.dtype not in (torch.float16, torch.bfloat16):
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        return AttentionInterface()["sdpa"](module, query, key, value, *rest, **named)

    mapping = AttentionInterface._global_mapping
    monkeypatch.setitem(mapping, "flash_attention_2", attention)
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: None)
    monkeypatch.setattr(
        PreTrainedModel, "get_correct_attn_implementation", lambda _, name, __: name or "sdpa"
    )
    return called


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_in_half_precision_is_not_for_flash_attention(
    family: str, flash: list[torch.dtype]
) -> None:
    plain = adapters.prepare(small(family), "lora", rank=2, alpha=4.0)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model = copy.deepcopy(plain)
    prepare_blocks(model, BackboneLoopConfig(attention="flash", precision="bf16"))

    def tokens(backbone: nn.Module, precision: str) -> torch.Tensor:
        def of(rows: Any) -> torch.Tensor:
            return tokens_of(backbone, PIXELS[rows])  # type: ignore[arg-type]

        world = World(0, 1, torch.device("cpu"))
        return in_batches(of, np.arange(len(PIXELS)), world, "", precision)

    tokens(model, "bf16")
    assert flash == [torch.bfloat16] * 2

    # What certificates are about, and the merge.
    assert torch.equal(tokens(model, "fp32"), tokens(plain, "fp32"))
    assert torch.equal(exact_tokens(model, PIXELS), exact_tokens(plain, PIXELS))
    merged = adapters.merge(model, PIXELS)
    torch.testing.assert_close(tokens(merged, "fp32"), tokens(plain, "fp32"), rtol=1e-4, atol=1e-4)
    assert len(flash) == 2

    # A second model of the process.
    prepare_blocks(small(family), BackboneLoopConfig(attention="flash", precision="bf16"))
    tokens(merged, "bf16")
    assert flash == [torch.bfloat16] * 4


@pytest.mark.slow
def test_the_compiler_itself_computes_the_same() -> None:
    plain = adapters.prepare(small("dinov2", 3), "lora", rank=2, alpha=4.0)
    compiled = copy.deepcopy(plain)
    prepare_blocks(compiled, BackboneLoopConfig(compile="default", precision="fp32"))
    before = blocks.compilation_time()
    _assert_same(compiled, plain)
    count, seconds = blocks.compilation_time()
    assert count > before[0]
    assert seconds > before[1]
