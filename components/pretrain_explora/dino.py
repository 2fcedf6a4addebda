"""Self-distillation in the manner of DINOv2: a student of crops learns the outputs of its average.

Two large and several small crops of every image; the teacher, a running average of the student,
sees the large ones. The loss of an image is the sum of DINO over pairs of different crops (Caron et
al. 2021, arXiv 2104.14294), iBOT over the masked patches of the large crops (Zhou et al. 2022,
arXiv 2111.07832), KoLeo over the CLS features of the large crops (Oquab et al. 2023, arXiv
2304.07193, section 4), and with labels, cross-entropy over the large crops.

Why no library: lightly requires torchvision, which is not a dependency of this project; and these
losses are functions of the global batch, for any number of processes and micro-batches.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from components.pretrain_explora import masks, objectives
from components.pretrain_explora.collapse_monitor import CollapseMonitor
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.student import Student, StudentOutputs, masked_tokens
from components.pretrain_explora.train_crops import Positions, TrainCrops
from components.shared.contracts.random_streams import DinoStream
from components.shared.training.loop.batch_loss import BatchLoss
from components.shared.training.loop.distributed import World
from components.shared.training.loop.halving import PartSize, in_parts
from components.shared.training.loop.sampler import steps_per_epoch

T = TypeVar("T")

_LARGE = ("first_large", "second_large")  # kinds of crops
N_LARGE = len(_LARGE)
_SMALL_SIDE = 98 / 224  # side of the small crops relative to the large ones', as in DINOv2
_INITIAL_TEMPERATURE = 0.04
# Large crops at a time without gradients, which bounds the memory: on a GPU, few are bound by the
# host.
_TEACHER_BATCH = {"cpu": 32, "cuda": 256}


@dataclass(frozen=True)
class TeacherTargets:
    """Inputs and targets of n consecutive batch slots at one step.

    Crop c of the i-th image is row 2 i + c.

    Attributes:
        first_slot: Batch slot of the first image.
        images: (n, S, S, 3) uint8 stored images, from which the small crops are drawn.
        large: (2n, 3, S, S) large crops.
        masks: The patches of the 2n crops that are hidden from the student.
        cls: (2n, K) targets of CLS tokens.
        patches: (M, K) targets of the M masked patches, in the order of `masks`.
        koleo: KoLeo of the student's CLS features (B, 2, D) of the whole global batch; None where
            it has no weight, and in a process that is alone until a micro-batch needs it.
    """

    first_slot: int
    images: torch.Tensor
    large: torch.Tensor
    masks: masks.PatchMasks
    cls: torch.Tensor
    patches: torch.Tensor
    koleo: BatchLoss | None

    def take(self, batch_slots: Positions) -> "TeacherTargets":
        """Return the part of these consecutive batch slots, all of them among the n."""
        first = int(batch_slots[0]) - self.first_slot
        last = int(batch_slots[-1]) + 1 - self.first_slot
        start, stop, ends = N_LARGE * first, N_LARGE * last, self.masks.ends

        return dataclasses.replace(
            self,
            first_slot=int(batch_slots[0]),
            images=self.images[first:last],
            large=self.large[start:stop],
            masks=self.masks.take(start, stop),
            cls=self.cls[start:stop],
            patches=self.patches[int(ends[start]) : int(ends[stop])],
        )


class DinoTask:
    """The task of self-distillation.

    `module` is the student, `teacher` the running average of its trainable weights.
    """

    monitor = None  # without labels no epoch is better than another: the last one is exported

    def __init__(
        self, config: PretrainExploraConfig, student: Student, crops: TrainCrops, world: World
    ) -> None:
        self.config, self.crops, self.world = config, crops, world
        self.module: nn.Module = student
        self.student = student
        # Frozen parameters are shared: the same tensors in student and teacher.
        frozen = {id(p): p for p in student.parameters() if not p.requires_grad}
        self.teacher: nn.Module = copy.deepcopy(student, frozen).requires_grad_(False).eval()

        self.reader = crops.reader()
        self.n_samples = len(crops.images)
        self.batch_size = min(config.global_batch_size, self.n_samples)
        patch = student.backbone.config.patch_size
        self.side = crops.size // patch
        self.small_size = max(1, round(crops.size * _SMALL_SIDE / patch)) * patch

        n_steps = config.epochs * steps_per_epoch(self.n_samples, config.global_batch_size)
        self.n_warmup_steps = max(1, round(n_steps * config.warmup_ratio))
        self.collapse_monitor = CollapseMonitor(
            crops, student.backbone, world, self._prototype_probabilities
        )
        self._targets: TeacherTargets | None = None
        self._part_size = PartSize(_TEACHER_BATCH[world.device.type])

    def begin_step(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        """Compute the targets of this rank's images, centred over the global batch; collective."""
        with self.world.timings.part("data"):
            images = self.reader.images(batch[batch_slots])
            large = self._draw_crops(images, batch_slots, step, 0, _LARGE, self.crops.size)
            hidden = self._draw_masks(batch_slots, step)

        cls_logits, patch_logits = self._teacher_outputs(large, hidden)
        temperature = self.teacher_temperature(step)
        self._targets = TeacherTargets(
            first_slot=int(batch_slots[0]),
            images=images,
            large=large,
            masks=hidden,
            cls=self._centered(cls_logits, 0, temperature),
            patches=self._centered(patch_logits, 1, temperature),
            # All ranks together; a process that is alone computes it when it needs it.
            koleo=self._koleo_of_batch(large, hidden) if self.world.size > 1 else None,
        )

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the weighted sum of DINO, iBOT, label and KoLeo losses, summed over the images."""
        config, targets = self.config, self._targets_of(batch_slots)
        kinds = ("small",) * config.explora_local_crops
        with self.world.timings.part("data"):
            small = self._draw_crops(
                targets.images, batch_slots, step, N_LARGE, kinds, self.small_size
            )

        hidden = targets.masks
        outputs: StudentOutputs = model(targets.large, small, hidden.hidden, hidden.places)

        terms = [self._dino(outputs, targets)]
        if config.explora_ibot_weight:
            terms.append(config.explora_ibot_weight * self._ibot(outputs, targets))
        if outputs.class_logits is not None:
            terms.append(self.crops.label_loss(outputs.class_logits, positions))
        if config.explora_koleo_weight:
            features = outputs.cls.float().view(len(batch_slots), N_LARGE, -1)
            terms.append(config.explora_koleo_weight * self._koleo(features, batch_slots))

        return sum(terms[1:], start=terms[0])

    def evaluate(self) -> dict[str, float]:
        """Return the measures of `CollapseMonitor`; raises PermanentError after a collapse."""
        return self.collapse_monitor.check(self.student.backbone)

    def teacher_temperature(self, step: int) -> float:
        """Return the teacher's temperature, which rises linearly from 0.04 during the warm-up."""
        last = self.config.explora_teacher_temperature
        first = min(_INITIAL_TEMPERATURE, last)
        return first + (last - first) * min(1.0, step / self.n_warmup_steps)

    def _targets_of(self, batch_slots: Positions) -> TeacherTargets:
        assert self._targets is not None  # the loop calls begin_step before loss
        return self._targets.take(batch_slots)

    def _draw_crops(
        self,
        images: torch.Tensor,
        batch_slots: Positions,
        step: int,
        first_stream: int,
        kinds: Sequence[str],
        size: int,
    ) -> torch.Tensor:
        """Return crops (n * len(kinds), 3, size, size); those of an image are adjacent."""
        key = (self.config.seed, step, first_stream)
        return self.crops.draw(images, batch_slots, key, size, kinds, self.batch_size)

    def _draw_masks(self, batch_slots: Positions, step: int) -> masks.PatchMasks:
        """Return the masks of the 2n large crops; without iBOT, nothing is hidden."""
        if not self.config.explora_ibot_weight:
            none = np.zeros((N_LARGE * len(batch_slots), self.side**2), dtype=np.bool_)
            return masks.PatchMasks.of(none, self.world.device)

        drawn = []
        for slot in batch_slots:
            for crop in range(N_LARGE):
                key = (self.config.seed, step, DinoStream.MASKS, N_LARGE * int(slot) + crop)
                drawn.append(masks.block_mask(key, self.side))

        return masks.PatchMasks.of(np.stack(drawn), self.world.device)

    @torch.no_grad()
    def _teacher_outputs(
        self, large: torch.Tensor, hidden: masks.PatchMasks
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the teacher's logits of CLS tokens (2n, K) and of masked patches (M, K)."""
        assert isinstance(self.teacher, Student)
        teacher = self.teacher
        parts = self._in_parts(
            lambda pixels, part: teacher.teacher_logits(pixels, part.places), large, hidden
        )
        return (
            torch.cat([cls_logits for cls_logits, _ in parts]).float(),
            torch.cat([patch_logits for _, patch_logits in parts]).float(),
        )

    def _koleo(self, features: torch.Tensor, batch_slots: Positions) -> torch.Tensor:
        """Return KoLeo, summed over the images of features (n, 2, D) with gradients.

        Where one pass has the whole batch, its features need no further pass.
        """
        slots, whole = self.world.on_device(batch_slots), self._targets
        assert whole is not None
        if whole.koleo is None and len(features) == len(whole.images):
            return BatchLoss.of(features, _mean_koleo).part(features, slots)
        if whole.koleo is None:
            koleo = self._koleo_of_batch(whole.large, whole.masks)
            self._targets = whole = dataclasses.replace(whole, koleo=koleo)
        assert whole.koleo is not None
        return whole.koleo.part(features, slots)

    @torch.no_grad()
    def _koleo_of_batch(self, large: torch.Tensor, hidden: masks.PatchMasks) -> BatchLoss | None:
        """Return KoLeo of the global batch's large crops, first and second ones apart."""
        if not self.config.explora_koleo_weight:
            return None

        backbone = self.student.backbone
        parts = self._in_parts(
            lambda pixels, part: masked_tokens(backbone, pixels, part.hidden)[:, 0], large, hidden
        )
        cls = torch.cat(parts).float()

        own = cls.view(-1, N_LARGE, cls.shape[1])
        features = self.world.gather_on_device(own, self.batch_size)
        return BatchLoss.of(features, _mean_koleo)

    def _in_parts(
        self,
        function: Callable[[torch.Tensor, masks.PatchMasks], T],
        large: torch.Tensor,
        hidden: masks.PatchMasks,
    ) -> list[T]:
        """Return `function` of the large crops and their masks, of so many at a time as fit."""

        def of_rows(rows: Positions) -> T:
            start, stop = int(rows[0]), int(rows[-1]) + 1
            return function(large[start:stop], hidden.take(start, stop))

        rows = np.arange(len(large), dtype=np.int64)
        return list(in_parts(of_rows, rows, self._part_size, self.world))

    @torch.no_grad()
    def _centered(self, logits: torch.Tensor, index: int, temperature: float) -> torch.Tensor:
        """Return targets from the teacher's logits; `index` is 0 for CLS tokens, 1 for patches."""
        if self.config.explora_centering == "sinkhorn":
            return objectives.sinkhorn(logits, temperature, self.world)
        return objectives.centered(logits, self.student.centers[index], temperature, self.world)

    def _prototype_probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the student's probabilities (n, K) of the prototypes for full images."""
        no_patches = torch.zeros(0, dtype=torch.int64, device=pixels.device)
        logits, _ = self.student.teacher_logits(pixels, no_patches)
        # Under Sinkhorn-Knopp the centre stays zero.
        logits = logits - self.student.centers[0]
        return torch.softmax(logits.float() / self.config.explora_teacher_temperature, dim=1)

    def _dino(self, outputs: StudentOutputs, targets: TeacherTargets) -> torch.Tensor:
        """Return the cross-entropy of each large crop's target with every other crop's output.

        Averaged over the pairs of different crops, summed over the images (Caron et al. 2021,
        equation 3).
        """
        n, n_small = len(targets.cls) // N_LARGE, self.config.explora_local_crops
        large = outputs.cls_logits.view(n, N_LARGE, -1)
        small = outputs.small_cls_logits.view(n, n_small, targets.cls.shape[-1])
        first, second = targets.cls.view(n, N_LARGE, -1).unbind(1)

        total = (
            objectives.cross_entropy(large[:, 0], second).sum()
            + objectives.cross_entropy(large[:, 1], first).sum()
        )
        total = total + sum(
            objectives.cross_entropy(small, target[:, None]).sum() for target in (first, second)
        )

        return total / (N_LARGE + N_LARGE * n_small)

    def _ibot(self, outputs: StudentOutputs, targets: TeacherTargets) -> torch.Tensor:
        """Return the cross-entropy at masked patches.

        Averaged over a crop's masked patches and over an image's large crops, summed over the
        images (Zhou et al. 2022).
        """
        n_masked = targets.masks.counts
        weights = (1.0 / n_masked.clamp_min(1)).repeat_interleave(
            n_masked, output_size=len(targets.patches)
        )
        losses = objectives.cross_entropy(outputs.patch_logits, targets.patches)
        return (losses * weights).sum() / N_LARGE


def _mean_koleo(features: torch.Tensor) -> torch.Tensor:
    """Return KoLeo of features (B, 2, D), summed over an image's crops, as a mean over images."""
    of_crops = [objectives.koleo(crop) for crop in features.unbind(1)]
    return torch.stack(of_crops).sum(dim=0).mean()
