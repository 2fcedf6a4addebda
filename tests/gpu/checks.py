"""Checks of the GPU path: a GPU computes what a CPU does, again and again, in little memory.

Each function takes a `Workload`, raises AssertionError, and returns what it measured. On a CPU they
compare it with itself, which rehearses them (`n_gpus_needed`).
"""

import inspect
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

from components.pretrain_explora import crop_augmentation
from components.shared.models.backbone import load_backbone, tokens_of
from components.shared.training.launch.torchrun import launch
from components.shared.training.loop.inference import (
    augmented_features,
    drawn_augmentations,
    part_size,
)
from components.shared.training.loop.sampler import step_rng
from components.shared.training.loop.state import Position, capture, restore
from components.shared.vision import augmentation, corruptions
from tests.gpu.workload import (
    FAMILIES,
    Workload,
    part,
    trained,
    weights,
)

Found = dict[str, Any]
_CPU = torch.device("cpu")
_RANK = "tests.gpu.rank"
_SHARES = (0.8, 0.5, 0.35)  # of the memory that something takes


def augmented_images_are_those_of_a_cpu(work: Workload) -> Found:
    """Mean difference of pixels in [0, 1] below 1e-3: less than a third of a grey level."""
    found: Found = {}
    images = torch.from_numpy(part(work.data, 8))
    for strength in augmentation.STRENGTHS:
        drawn = augmentation.draw(step_rng(0, 1, 1), 8, strength)
        ours = augmentation.apply(images.to(work.device), drawn).cpu()
        found[strength] = float((ours - augmentation.apply(images, drawn)).abs().mean())
    size = work.image_size
    for kind in crop_augmentation.KINDS:
        crops = crop_augmentation.draw(step_rng(0, 1, 2), 8, kind)
        ours = crop_augmentation.apply(images.to(work.device), crops, size).cpu()
        theirs = crop_augmentation.apply(images, crops, size)
        found[kind] = float((ours - theirs).abs().mean())
    assert max(found.values()) < 1e-3, found
    return found


def corrupted_images_are_those_of_a_cpu(work: Workload) -> Found:
    """Mean difference below 4e-3: one grey level, as JPEG and rounding may turn over."""
    found: Found = {}
    images = torch.from_numpy(part(work.data, 4))
    for severity in corruptions.SEVERITIES:
        drawn = corruptions.draw(step_rng(0, severity, 4), 4, severity)
        ours = corruptions.corrupt(images.to(work.device), drawn, work.image_size).cpu()
        theirs = corruptions.corrupt(images, drawn, work.image_size)
        found[str(severity)] = float((ours - theirs).abs().mean())
    assert max(found.values()) < 4e-3, found
    return found


def tokens_are_those_of_a_cpu(work: Workload) -> Found:
    """Largest difference of tokens, which are of the order of 1, in each precision."""
    limits = {"fp32": 1e-3, "tf32": 5e-2, "bf16": 0.3}
    found: Found = {}
    size = work.image_size
    pixels = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    for family in FAMILIES:
        model = load_backbone(str(work.backbone("S", family))).eval()
        work.config(precision="fp32")
        with torch.no_grad():
            expected = tokens_of(model, pixels)
            model.to(work.device)
            for precision in limits:
                half = work.config(precision=precision).precision == "bf16"
                with torch.autocast(work.device.type, torch.bfloat16, enabled=half):
                    tokens = tokens_of(model, pixels.to(work.device)).float().cpu()
                found[f"{family}/{precision}"] = float((tokens - expected).abs().max())
    for name, difference in found.items():
        assert difference < limits[name.split("/")[1]], found
    return found


def equal_trainings_are_equal_to_the_bit(work: Workload) -> Found:
    """With `deterministic=true`."""
    for family in work.families:
        one, two = (_trained(work, family, deterministic=True) for _ in range(2))
        assert torch.equal(one, two), f"{family}: {float((one - two).abs().max()):.3g}"
    return {"differences": 0}


def micro_batches_change_rounding_only(work: Workload) -> Found:
    """Mean difference of the weights below 1e-6."""
    found: Found = {}
    for family in work.families:
        whole = _trained(work, family)
        parts = _trained(work, family, micro_batch_size=max(1, work.batch_size // 4))
        found[family] = float((whole - parts).abs().mean())
    assert max(found.values()) < 1e-6, found
    return found


def a_resumed_training_ends_with_the_same_bits(work: Workload) -> Found:
    """Through a checkpoint's state, with `deterministic=true`."""
    options: dict[str, Any] = {"mode": "lora", "precision": "bf16", "micro_batch_size": 4}
    options |= {"deterministic": True}
    whole = trained(work.trainer("S", **options), range(4))
    first = trained(work.trainer("S", **options), range(2))
    position = Position(best=first.averaged_weights(), best_value=0.0, losses=[0.0, 0.0])
    state = capture(first, position, work.world)

    again = work.trainer("S", **options)
    empty = Position(best=again.averaged_weights(), best_value=0.0)
    exactness = restore(state, again, empty, work.world)
    trained(again, range(2, 4))
    assert exactness == "identical to an uninterrupted training"
    assert torch.equal(weights(whole), weights(again))
    return {"exactness": exactness}


def little_memory_halves_the_micro_batch_and_keeps_the_weights(work: Workload) -> Found:
    """The process may use .8, .5 and .35 of the memory that training, or features, take."""
    found: Found = {}
    n, shares = (16, _SHARES[-1:]) if work.small else (64, _SHARES)
    for mode in ("lora",) if work.small else ("lora", "full"):
        options: dict[str, Any] = {"mode": mode, "precision": "fp32", "global_batch_size": n}
        options |= {"micro_batch_size": n}
        work.forget()
        trainer = work.trainer("S", **options)
        for step in range(3):
            work.forget_peak()  # which has what the probes of the first steps held back
            trainer.step(step)
        peak, expected = work.peak_gib, weights(trainer)
        trainer.close()
        del trainer
        for share in shares:
            work.forget()
            with _little_memory(work, share, peak=peak, n_images=n):
                trainer = trained(work.trainer("S", **options), range(3))
            difference = float((weights(trainer) - expected).abs().max())
            found[f"{mode}/{share}"] = {"micro_batch": trainer.micro_batch_size}
            assert trainer.micro_batch_size < n, found
            assert difference < 1e-3, (found, difference)
            del trainer

    work.forget()
    features, n_at_a_time = _features(work)
    peak = work.peak_gib
    for share in shares:
        work.forget()
        with _little_memory(work, share, peak=peak, n_images=n_at_a_time):
            again, n_now = _features(work)
        difference = float((again - features).abs().max())
        found[f"features/{share}"] = {"images_at_a_time": n_now, "without_limit": n_at_a_time}
        # A GPU's number is found by time as well.
        assert work.on_gpu or n_now < n_at_a_time, found
        assert difference < 1e-3, (found, difference)
    return found


def _features(work: Workload) -> tuple[torch.Tensor, int]:
    """Features of images and of one augmentation of each; and how many images fitted at a time."""
    classifier = work.classifier("S", work.config(mode="frozen", precision="fp32"), "dinov2").eval()
    rows = np.arange(32 if work.small else 2048)
    drawn = drawn_augmentations(len(work.split), n_augmentations=2, augmentation="moderate", seed=0)
    found = augmented_features(
        classifier, work.split, rows, work.world, parameters=drawn, precision="fp32"
    )
    return found, part_size(classifier, work.world).size


@contextmanager
def _little_memory(
    work: Workload, share: float, *, peak: float | None, n_images: int
) -> Iterator[None]:
    """Let the process use a share of `peak` GiB, which a pass of `n_images` images takes.

    In a rehearsal the memory of a CPU stands for a GPU's: a pass of more images fails.
    """
    if peak is not None:
        total = torch.cuda.get_device_properties(work.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share * peak * 2**30 / total))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def refuse(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d) and len(given[0]) > share * n_images:
            raise torch.OutOfMemoryError(f"rehearsed: {len(given[0])} images")

    hook = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def a_process_starts_and_joins_its_group(work: Workload) -> Found:
    """Under torchrun: imports, the device's context, a group (NCCL on a GPU), its sums, steps."""
    seconds, _ = _launched(work, 1)
    return {"start_and_three_steps_s": seconds}


def two_gpus_train_the_weights_of_one(work: Workload) -> Found:
    """Largest difference below 1e-4; never run so far: no machine with two cards was at hand."""
    (one_seconds, one), (two_seconds, two) = _launched(work, 1), _launched(work, 2)
    differences = {name: float((one[name] - two[name]).abs().max()) for name in one}
    assert max(differences.values()) < 1e-4, differences
    return {"one_s": one_seconds, "two_s": two_seconds}


def _trained(work: Workload, family: str, **changes: Any) -> torch.Tensor:
    options = {"mode": "lora", "precision": "fp32", "micro_batch_size": work.batch_size} | changes
    work.forget()
    return weights(trained(work.trainer("S", family, **options), range(work.n_steps)))


def _launched(work: Workload, n_processes: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Seconds of a small training in processes of its own, and its weights."""
    with TemporaryDirectory() as folder:
        job = Path(folder, "job.json")
        backbone = work.backbone("S")
        job.write_text(json.dumps({"backbone": str(backbone)}), encoding="utf-8")
        began = time.perf_counter()
        launch(_RANK, job, n_processes=n_processes)
        return time.perf_counter() - began, load_file(job.with_name("weights.safetensors"))


CHECKS: tuple[Callable[[Workload], Found], ...] = (
    augmented_images_are_those_of_a_cpu,
    corrupted_images_are_those_of_a_cpu,
    tokens_are_those_of_a_cpu,
    a_process_starts_and_joins_its_group,
    equal_trainings_are_equal_to_the_bit,
    micro_batches_change_rounding_only,
    a_resumed_training_ends_with_the_same_bits,
    little_memory_halves_the_micro_batch_and_keeps_the_weights,
    two_gpus_train_the_weights_of_one,
)
# Several processes need it; torch 2.11 does not have it, torch 2.13 does.
_SYNCS_NOTHING = "forward_sync_buffers"
# GPUs without which a check says nothing, by its name.
_N_GPUS = {
    two_gpus_train_the_weights_of_one.__name__: 2,
}


def missing(check: Callable[[Workload], Found], n_gpus: int) -> str:
    """Return what this machine lacks for a check; empty where it can run or be rehearsed."""
    if n_gpus < n_gpus_needed(check):
        return f"needs {n_gpus_needed(check)} GPU(s)"
    known = inspect.signature(DistributedDataParallel).parameters
    if n_gpus_needed(check) > 1 and _SYNCS_NOTHING not in known:
        return f"needs DistributedDataParallel({_SYNCS_NOTHING}=), as in torch 2.13"
    return ""


def n_gpus_needed(check: Callable[[Workload], Found]) -> int:
    """Return how many GPUs a check needs; 0: a CPU rehearses it."""
    return _N_GPUS.get(check.__name__, 0)
