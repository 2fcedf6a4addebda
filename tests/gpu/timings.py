"""Speed and memory of trainings and of features, beside a plain PyTorch loop.

A row is a dictionary: what was measured, images/s, peak of memory. Nothing is asserted: a shared
card has other work. timm's published figures are cited beside ours, not run.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.dino import DinoTask
from components.pretrain_explora.explora import prepare_explora
from components.pretrain_explora.masks import PatchMasks
from components.pretrain_explora.student import PrototypeHead, Student
from components.pretrain_explora.train_crops import TrainCrops
from components.shared.data.train_images import TrainImages
from components.shared.models.backbone import load_backbone
from components.shared.models.blocks import prepare_blocks
from components.shared.models.classifier import Classifier, standardise
from components.shared.training.loop.inference import SplitData, augmented_features, part_size
from components.shared.training.loop.sampler import step_rng
from components.shared.training.loop.state import Position, capture
from components.shared.training.loop.trainer import Trainer
from components.shared.vision import augmentation
from tests.gpu.workload import Workload, without_reading

Row = dict[str, Any]
Measure = Callable[[], Row]
_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_N_WORKERS = 8
_LARGE_BATCH = 256


def cases(work: Workload) -> Iterator[tuple[str, Measure]]:
    """Every measurement, the most wanted first, as (name, what measures it)."""
    for size in work.sizes:
        yield f"train/{size}/lora/bf16", partial(training, work, size, "lora", "bf16")
        yield f"plain/{size}/lora/bf16", partial(plain_loop, work, size, compiled=False)
        yield f"features/{size}/bf16", partial(features, work, size, "bf16")

    largest = work.sizes[-1]
    yield f"checkpoint/{largest}/full", partial(checkpoint, work, largest)
    yield "explora/S/dino/bf16", partial(explora, work)
    if not work.small:
        yield from _further_cases(work)


def _further_cases(work: Workload) -> Iterator[tuple[str, Measure]]:
    """What says little more on a CPU: compilation, a large batch, other modes and precisions."""
    for size in work.sizes:
        name = f"{size}/lora/bf16/compiled"
        yield f"train/{name}", partial(training, work, size, "lora", "bf16", compiled=True)
        yield f"plain/{name}", partial(plain_loop, work, size, compiled=True)
        yield f"features/{size}/bf16/compiled", partial(features, work, size, "bf16", compiled=True)
    yield "explora/S/dino/bf16/compiled", partial(explora, work, compiled=True)

    large = replace(work, batch=_LARGE_BATCH)
    for size in work.sizes:
        name = f"{size}/lora/bf16/batch-{_LARGE_BATCH}"
        yield f"train/{name}", partial(training, large, size, "lora", "bf16")
        yield f"plain/{name}", partial(plain_loop, large, size, compiled=False)

    for size in work.sizes:
        yield f"train/{size}/full/bf16", partial(training, work, size, "full", "bf16")
    for size, precision in itertools.product(work.sizes, ("tf32", "fp32")):
        yield f"features/{size}/{precision}", partial(features, work, size, precision)
        yield f"train/{size}/lora/{precision}", partial(training, work, size, "lora", precision)
    for size, precision in itertools.product(work.sizes, ("tf32", "fp32")):
        yield f"train/{size}/full/{precision}", partial(training, work, size, "full", precision)


def training(
    work: Workload, size: str, mode: str, precision: str, *, compiled: bool = False
) -> Row:
    """Images/s of our steps, and of the same on images that are ready: the loader's share."""
    work.forget()
    options: dict[str, Any] = {"mode": mode, "precision": precision}
    options |= {"compile": "default" if compiled else "off"}
    trainer = work.trainer(size, **options)
    whole = _seconds_of_step(work, trainer)
    row: Row = {"images_s": work.batch_size / whole, "peak_gib": work.peak_gib}
    row["micro_batch"] = trainer.micro_batch_size
    row["host_data_share"] = trainer.world.timings.take()["data"] / (whole * _n_steps(work)[1])
    trainer.close()

    trainer = work.trainer(size, **options)
    ready = torch.from_numpy(work.data.images(np.arange(work.batch_size))).to(work.device)
    without_reading(trainer.task, ready)
    bare = _seconds_of_step(work, trainer)
    trainer.close()
    return row | {"images_s_ready": work.batch_size / bare, "loader_share": 1 - bare / whole}


def plain_loop(work: Workload, size: str, *, compiled: bool) -> Row:
    """The usual loop in bf16: workers, pinned memory, copies that overlap, fused AdamW."""
    work.forget()
    classifier = work.classifier(size, work.config(mode="lora", precision="bf16"), "dinov2").train()
    _with_own_positions(classifier)
    model: Callable[[torch.Tensor], torch.Tensor] = (
        torch.compile(classifier) if compiled else classifier
    )
    trained = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, fused=work.on_gpu)

    n_warmup, n_timed = (1, 2) if work.small else (10, 30)
    began = 0.0
    for step, (images, labels) in enumerate(_loaded(work, n_warmup + n_timed)):
        if step == n_warmup:
            work.wait()
            work.forget_peak()
            began = time.perf_counter()
        pixels = _augmented(images.to(work.device, non_blocking=True), classifier, step)
        with torch.autocast(work.device.type, torch.bfloat16):
            logits = model(pixels)
        loss = F.cross_entropy(logits.float(), labels.to(work.device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    work.wait()
    seconds = (time.perf_counter() - began) / n_timed
    return {"images_s": work.batch_size / seconds, "peak_gib": work.peak_gib}


def features(work: Workload, size: str, precision: str, *, compiled: bool = False) -> Row:
    """Images/s of features, and of the bare forward pass on pixels that are on the device.

    The bare pass has as many images at a time as ours found to be the fastest.
    """
    work.forget()
    how = "default" if compiled else "off"
    config = work.config(mode="frozen", precision=precision, compile=how)
    classifier = work.classifier(size, config, "dinov2").eval()
    rows = np.arange(16 if work.small else len(work.split))
    part = SplitData(work.data, rows, rows % 2)

    def extract() -> None:
        augmented_features(
            classifier, part, rows, work.world, parameters=[None], precision=config.precision
        )

    ours = len(rows) / _best_of(work, extract, 2)
    batch = min(len(rows), part_size(classifier, work.world).size)
    pixels = part.pixels(rows[:batch], classifier.spec, work.device)
    bare_classifier = work.classifier(size, work.config(mode="frozen"), "dinov2").eval()
    _with_own_positions(bare_classifier)
    forward: Callable[[torch.Tensor], torch.Tensor] = bare_classifier.features
    if compiled:
        forward = torch.compile(forward)
    half = config.precision == "bf16"

    def bare() -> None:
        with torch.no_grad(), torch.autocast(work.device.type, torch.bfloat16, enabled=half):
            forward(pixels)

    theirs = len(pixels) / _best_of(work, bare, 3)
    return {
        "images_s": ours,
        "batch": batch,
        "images_s_bare": theirs,
        "share_of_bare": ours / theirs,
        "peak_gib": work.peak_gib,
    }


def explora(work: Workload, *, compiled: bool = False) -> Row:
    """Images/s of self-distillation's steps, and of their bare forward and backward passes."""
    work.forget()
    config = work.prepared(
        PretrainExploraConfig(
            compile="default" if compiled else "off",
            global_batch_size=4 if work.small else 32,
            precision="bf16",
            epochs=1000,
            explora_rank=8 if work.small else 64,
            explora_crop_size=work.image_size,
        )
    )
    backbone = load_backbone(str(work.backbone("S")))
    body = prepare_explora(backbone, rank=config.explora_rank, alpha=8.0, unfrozen_blocks=1)
    head = PrototypeHead(body.config.hidden_size, 64 if work.small else 1024, 1024)
    student = Student(body, head).to(work.device)
    prepare_blocks(student.backbone, config)

    ids = tuple(str(i) for i in range(len(work.split)))
    images = TrainImages(work.data.manifest, work.image_size, ids, work.data.shards)
    crops = TrainCrops(images, work.image_size, *_STATISTICS, work.device)
    world = work.world
    task = DinoTask(config, student, crops, world)
    trainer = Trainer(task, config, world)
    seconds = _seconds_of_step(work, trainer)
    trainer.close()
    peak = work.peak_gib

    bare = _best_of(work, partial(_bare_explora, work, task, config.global_batch_size), 3)
    rate = config.global_batch_size / seconds
    return {"images_s": rate, "peak_gib": peak, "step_over_bare": seconds / bare}


def _bare_explora(work: Workload, task: DinoTask, n_images: int) -> None:
    """The passes of a step on pixels that are on the device, without losses and optimizer."""
    side, n_small = task.small_size, n_images * task.config.explora_local_crops
    large = torch.randn(2 * n_images, 3, work.image_size, work.image_size, device=work.device)
    small = torch.randn(n_small, 3, side, side, device=work.device)
    hidden = np.zeros((2 * n_images, task.side**2), dtype=np.bool_)
    hidden[:n_images, ::3] = True  # half of the crops, a third of their patches
    masks = PatchMasks.of(hidden, work.device)
    teacher: Any = task.teacher
    with torch.autocast(work.device.type, torch.bfloat16):
        with torch.no_grad():
            teacher.teacher_logits(large, masks.places)
        outputs = task.student(large, small, masks.hidden, masks.places)
        total = sum(value.float().sum() for value in outputs if value is not None)
    total.backward()
    task.student.zero_grad()


def checkpoint(work: Workload, size: str) -> Row:
    """How long a checkpoint holds the training, and its size."""
    work.forget()
    trainer = work.trainer(size, mode="full", micro_batch_size=4)
    trainer.step(0)
    position = Position(best=trainer.averaged_weights(), best_value=0.0, losses=[0.0])
    work.wait()
    began = time.perf_counter()
    state = capture(trainer, position, work.world)
    held = time.perf_counter() - began
    trainer.close()
    gib = sum(tensor.nbytes for tensor in state.tensors.values()) / 2**30
    return {"held_s": held, "gib": gib}


def _n_steps(work: Workload) -> tuple[int, int]:
    """Steps that warm up, and steps that are timed."""
    return (3, 2) if work.small else (8, 20)


def _seconds_of_step(work: Workload, trainer: Trainer) -> float:
    n_warmup, n_timed = _n_steps(work)
    for step in range(n_warmup):
        trainer.step(step)
    work.wait()
    work.forget_peak()  # which has what the probes held back
    trainer.world.timings.take()
    began = time.perf_counter()
    for step in range(n_warmup, n_warmup + n_timed):
        trainer.step(step)
    work.wait()
    return (time.perf_counter() - began) / n_timed


def _with_own_positions(classifier: Classifier) -> None:
    """Let a peer's backbone compute positions as transformers does: it compiles as one graph."""
    for module in classifier.modules():
        module.__dict__.pop("interpolate_pos_encoding", None)


def _best_of(work: Workload, run: Callable[[], None], times: int) -> float:
    run()
    seconds = []
    for _ in range(times):
        work.wait()
        began = time.perf_counter()
        run()
        work.wait()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _augmented(images: torch.Tensor, classifier: Classifier, step: int) -> torch.Tensor:
    """The augmentation of our own training, which a plain loop may use as well."""
    drawn = augmentation.draw(step_rng(0, step, 1), len(images), "moderate")
    return standardise(augmentation.apply(images, drawn), classifier.spec)


class _Items(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, part: SplitData) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = self.part.data.images(np.array([index]))[0]
        return torch.from_numpy(pixels), int(self.part.labels[index])


def _loaded(work: Workload, n_batches: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a DataLoader, epoch after epoch, until there were `n_batches`."""
    loader = torch.utils.data.DataLoader(
        _Items(work.split),
        work.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=0 if work.small else _N_WORKERS,
        pin_memory=work.on_gpu,
        persistent_workers=not work.small,
    )
    done = 0
    while True:
        for batch in loader:
            yield batch
            done += 1
            if done == n_batches:
                return
