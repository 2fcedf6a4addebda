"""How the blocks of a backbone compute: kernel of attention, compilation, and recomputation.

None of it touches a weight, a name of one, or a hook: a block's `forward` is replaced, in the
block itself, by another way to compute the same.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from components.shared.contracts.options import ComputeConfig

__all__ = ["as_written", "compilation_time", "prepare_blocks"]

_FLASH = "flash_attention_2"
_ATTENTION = {"sdpa": "sdpa", "eager": "eager", "flash": _FLASH}
# Without CUDA graphs: they overwrite the outputs of an earlier call of the same kernels, and all
# blocks share theirs.
_MODES = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}
# Forms of a block that PyTorch compiles before it gives up: with and without gradients and
# autocast, of two models, for one size of batch and then for any.
_MOST_FORMS = 64

_Forward = Callable[..., Any]


def prepare_blocks(backbone: PreTrainedModel | PeftModel, config: ComputeConfig) -> None:
    """Let the blocks compute, from now on, as a resolved configuration says.

    Call it last: on a backbone that has its adapters and its device. Blocks are compiled at their
    first pass, all with one and the same code. flash-attn takes half precision only: the passes
    that are exact whatever is configured (merges, predictions for certificates) keep sdpa.
    """
    if config.attention == "flash":
        _leave_exact_passes_to_sdpa()
    base = backbone.get_base_model() if isinstance(backbone, PeftModel) else backbone
    if base.config._attn_implementation != _ATTENTION[config.attention]:
        base.set_attn_implementation(_ATTENTION[config.attention])

    recomputes = bool(getattr(config, "gradient_checkpointing", False))
    if config.compile == "off" and not recomputes:
        return

    for block in _blocks(backbone):
        forward: _Forward = type(block).forward
        if config.compile != "off":
            forward = _compiled(forward, config.compile)
        if recomputes:
            forward = _recomputed(forward)
        # A bound method and not a closure, so that a copy of the block computes with its own
        # weights.
        block.forward = MethodType(forward, block)


@contextlib.contextmanager
def as_written(backbone: nn.Module) -> Iterator[None]:
    """Compute inside as the blocks' classes say: for a pass that is not worth a compilation."""
    replaced = {block: block.__dict__.pop("forward", None) for block in _blocks(backbone)}
    try:
        yield
    finally:
        for block, forward in replaced.items():
            if forward is not None:
                block.forward = forward


def compilation_time() -> tuple[int, float]:
    """Return how many forms of a block were compiled in this process, and in how many seconds."""
    return _Clock.count, _Clock.seconds


def _blocks(backbone: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks, those inside of peft's wrappers too."""
    return [part for part in backbone.modules() if isinstance(part, GradientCheckpointingLayer)]


def _leave_exact_passes_to_sdpa() -> None:
    """Let transformers call flash-attn from now on, in this process, for half precision alone."""
    attention = AttentionInterface()
    flash = attention[_FLASH]
    if not isinstance(flash, functools.partial):
        by_precision = functools.partial(_by_precision, flash, attention["sdpa"])
        AttentionInterface.register(_FLASH, by_precision)


def _by_precision(
    flash: _Forward,
    sdpa: _Forward,
    module: nn.Module,
    query: torch.Tensor,
    *arguments: Any,
    **named: Any,
) -> Any:
    """Compute the attention by the kernel that takes the query's precision.

    Under autocast, transformers casts a query of fp32, as DINOv3's is, before it calls flash-attn.
    """
    is_cast = query.dtype == torch.float32 and torch.is_autocast_enabled(query.device.type)
    if is_cast or query.dtype in (torch.bfloat16, torch.float16):
        return flash(module, query, *arguments, **named)
    return sdpa(module, query, *arguments, **named)


class _Clock:
    """Seconds that PyTorch spent on compiling, in this process."""

    count = 0
    seconds = 0.0
    _began = 0.0

    @classmethod
    def start(cls, *_: object) -> None:
        cls._began = time.monotonic()

    @classmethod
    def stop(cls, *_: object) -> None:
        cls.count += 1
        cls.seconds += time.monotonic() - cls._began


@functools.cache
def _compiled(forward: _Forward, mode: str) -> _Forward:
    """Return the compiled function; one for all blocks of a class."""
    # Loads in seconds, and not before it is needed.
    from torch._dynamo import callback
    from torch._dynamo import config as dynamo

    dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_FORMS)
    if _Clock.start not in callback.callback_handler.start_callbacks:
        callback.on_compile_start(_Clock.start)
        callback.on_compile_end(_Clock.stop)
    return torch.compile(forward, mode=_MODES[mode])


def _recomputed(forward: _Forward) -> _Forward:
    """Return a function that keeps its inputs alone for the backward pass.

    transformers' own way has no effect in evaluation mode, in which the backbone always is.
    """

    def recomputed(block: nn.Module, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(block, *arguments, **named)
        # Nothing inside draws random numbers: the generators' states need not be kept.
        return checkpoint(
            forward, block, *arguments, use_reentrant=False, preserve_rng_state=False, **named
        )

    return recomputed
