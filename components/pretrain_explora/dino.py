"""The DINOv2-style objective: a student that sees parts must say what the average of its past says
about the whole.

Two large and several small crops of every image; the teacher sees the large ones. Summed per image:
DINO over pairs of different crops, iBOT over the masked patches of the large crops, KoLeo over the
large crops' CLS features; and of labels, where it is given any, cross-entropy over the large crops.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from components.pretrain_explora import masks, objectives
from components.pretrain_explora.collapse_monitor import CollapseMonitor
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.student import Student, masked_tokens
from components.pretrain_explora.train_crops import Pixels, Positions
from components.shared.training.loop.distributed import World
from components.shared.training.loop.sampler import steps_per_epoch

N_LARGE = 2
_MASKS = 1000  # random streams: crops are numbered from 0
_SMALL_SHARE = 98 / 224  # side of the small crops
_FIRST_TEMPERATURE = 0.04
_TEACHER_BATCH = 32


@dataclass(frozen=True)
class TeacherTargets:
    """The teacher's part of one step for this rank's n images; crops are numbered as 2 i + crop."""

    first_slot: int
    large: torch.Tensor  # (2n, 3, S, S)
    masks: torch.Tensor  # (2n, N) bool
    cls: torch.Tensor  # (2n, K) targets
    patches: torch.Tensor  # (M, K) targets in the order of the masks
    references: (
        torch.Tensor
    )  # (B, 2, D) the student's CLS features of the whole global batch, without gradients


class DinoTask:
    """Self-distillation. `module` is the student, `teacher` the running average of its trainable
    weights.
    """

    monitor = None  # without labels no epoch is better than another: the last one is exported

    def __init__(
        self, config: PretrainExploraConfig, student: Student, pixels: Pixels, world: World
    ) -> None:
        self.config, self.pixels, self.world = config, pixels, world
        self.module: nn.Module = student
        self.student = student
        # What is frozen is the same tensor in both.
        frozen = {id(p): p for p in student.parameters() if not p.requires_grad}
        self.teacher: nn.Module = copy.deepcopy(student, frozen).requires_grad_(False).eval()
        self.n_samples = len(pixels.images)
        self.batch_size = min(config.global_batch_size, self.n_samples)
        patch = student.backbone.config.patch_size
        self.side = pixels.size // patch
        self.small_size = max(1, round(pixels.size * _SMALL_SHARE / patch)) * patch
        n_steps = config.epochs * steps_per_epoch(self.n_samples, config.global_batch_size)
        self.warmup = max(1, round(n_steps * config.warmup_ratio))
        self.watch = CollapseMonitor(pixels, student.backbone, world, self._assignments)
        self._lesson: TeacherTargets | None = None

    def begin_step(self, positions: Positions, batch_slots: Positions, step: int) -> None:
        """The teacher's answers about this rank's images, centred over the global batch."""
        large = self._crops(
            positions, batch_slots, step, range(N_LARGE), self.pixels.size, "global"
        )
        hidden = self._masks(batch_slots, step)
        cls, patches = self._taught(large, hidden)
        temperature = self.temperature(step)
        self._lesson = TeacherTargets(
            first_slot=int(batch_slots[0]),
            large=large,
            masks=hidden,
            cls=self._targets(cls, 0, temperature),
            patches=self._targets(patches, 1, temperature),
            references=self._references(large, hidden),
        )

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Sum of the three parts over the images."""
        lesson, n = self._lesson, len(positions)
        assert lesson is not None  # begin_step comes first
        rows = slice(
            N_LARGE * (int(batch_slots[0]) - lesson.first_slot),
            N_LARGE * (int(batch_slots[-1]) + 1 - lesson.first_slot),
        )
        n_small = self.config.explora_local_crops
        small = self._crops(
            positions,
            batch_slots,
            step,
            range(N_LARGE, N_LARGE + n_small),
            self.small_size,
            "local",
        )
        cls, named, logits, patches, small_logits = model(
            lesson.large[rows], small, lesson.masks[rows]
        )
        targets = lesson.cls[rows].view(n, N_LARGE, -1)
        loss = self._dino(
            targets, logits.view(n, N_LARGE, -1), small_logits.view(n, n_small, targets.shape[-1])
        )
        counts = lesson.masks.sum(dim=1)
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        of_masked = lesson.patches[int(ends[rows.start]) : int(ends[rows.stop])]
        loss = loss + self.config.explora_ibot_weight * self._ibot(of_masked, patches, counts[rows])
        if named is not None:
            loss = loss + self.pixels.label_loss(named, positions)
        if not self.config.explora_koleo_weight:
            return loss
        own = torch.from_numpy(batch_slots).to(cls.device)
        pairs = zip(cls.view(n, N_LARGE, -1).unbind(1), lesson.references.unbind(1), strict=True)
        spread = [objectives.koleo(of_crop, others, own).sum() for of_crop, others in pairs]
        return loss + self.config.explora_koleo_weight * sum(spread)

    def evaluate(self) -> dict[str, float]:
        """How far the present weights tell images apart; PermanentError where they do not any
        more.
        """
        return self.watch.check(self.student.backbone)

    def temperature(self, step: int) -> float:
        """The teacher's, rising linearly from 0.04 during the warm-up."""
        last = self.config.explora_teacher_temperature
        first = min(_FIRST_TEMPERATURE, last)
        return first + (last - first) * min(1.0, step / self.warmup)

    def _crops(
        self,
        positions: Positions,
        batch_slots: Positions,
        step: int,
        streams: range,
        size: int,
        strength: str,
    ) -> torch.Tensor:
        """(n * number of streams, 3, size, size): the crops of an image beside each other."""
        if not streams:
            return torch.empty((0, 3, size, size), device=self.world.device)
        keys = [(self.config.seed, step, stream) for stream in streams]
        crops = [
            self.pixels.crops(positions, batch_slots, key, size, strength, self.batch_size)
            for key in keys
        ]
        return torch.stack(crops, dim=1).flatten(0, 1)

    def _masks(self, batch_slots: Positions, step: int) -> torch.Tensor:
        if not self.config.explora_ibot_weight:
            return torch.zeros(
                (N_LARGE * len(batch_slots), self.side**2),
                dtype=torch.bool,
                device=self.world.device,
            )
        places = [N_LARGE * int(slot) + crop for slot in batch_slots for crop in range(N_LARGE)]
        drawn = [
            masks.block_mask((self.config.seed, step, _MASKS, place), self.side) for place in places
        ]
        return torch.from_numpy(np.stack(drawn)).to(self.world.device)

    @torch.no_grad()
    def _taught(
        self, large: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The teacher's logits of CLS tokens (2n, K) and of masked patches (M, K)."""
        assert isinstance(self.teacher, Student)
        pairs = zip(
            torch.split(large, _TEACHER_BATCH), torch.split(hidden, _TEACHER_BATCH), strict=True
        )
        parts = [self.teacher.teach(pixels, mask) for pixels, mask in pairs]
        return (
            torch.cat([part[0] for part in parts]).float(),
            torch.cat([part[1] for part in parts]).float(),
        )

    @torch.no_grad()
    def _references(self, large: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """(B, 2, D): where the student has all images of the global batch at this step."""
        if not self.config.explora_koleo_weight:
            return large.new_empty((0, N_LARGE, 0))
        pairs = zip(
            torch.split(large, _TEACHER_BATCH), torch.split(hidden, _TEACHER_BATCH), strict=True
        )
        cls = torch.cat(
            [masked_tokens(self.student.backbone, pixels, mask)[:, 0] for pixels, mask in pairs]
        ).float()
        shares = cls.view(-1, N_LARGE, cls.shape[1])
        return self.world.gather_rows(shares, self.batch_size).to(large.device)

    @torch.no_grad()
    def _targets(self, logits: torch.Tensor, index: int, temperature: float) -> torch.Tensor:
        if self.config.explora_centering == "sinkhorn":
            return objectives.sinkhorn(logits, temperature, self.world)
        return objectives.centred(logits, self.student.centres[index], temperature, self.world)

    def _assignments(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros((len(pixels), self.side**2), dtype=torch.bool, device=pixels.device)
        logits = (
            self.student.teach(pixels, hidden)[0] - self.student.centres[0]
        )  # which is zero under Sinkhorn
        return torch.softmax(logits.float() / self.config.explora_teacher_temperature, dim=1)

    def _dino(
        self, targets: torch.Tensor, large: torch.Tensor, small: torch.Tensor
    ) -> torch.Tensor:
        """Every large crop's target against every other crop's answer, averaged over the pairs."""
        first, second = targets.unbind(1)
        total = (
            objectives.cross_entropy(large[:, 0], second).sum()
            + objectives.cross_entropy(large[:, 1], first).sum()
        )
        total = total + sum(
            objectives.cross_entropy(small, target[:, None]).sum() for target in (first, second)
        )
        return total / (N_LARGE + N_LARGE * small.shape[1])

    def _ibot(
        self, targets: torch.Tensor, logits: torch.Tensor, counts: torch.Tensor
    ) -> torch.Tensor:
        """The mean over a crop's masked patches, averaged over its image's large crops; counts
        (2n,) of the crops.
        """
        weights = (1.0 / counts.clamp_min(1)).repeat_interleave(counts)
        return (objectives.cross_entropy(logits, targets) * weights).sum() / N_LARGE
