"""The gate's loss and selection metric, on cached features of a fixed backbone."""

import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from components.shared.contracts.random_streams import GateStream
from components.shared.models.classifier import Classifier, Head
from components.shared.models.gate import SELECTIVE_NET, Gate, GateHead
from components.shared.stats.risk_coverage import augrc
from components.shared.training.loop.batch_loss import BatchLoss
from components.shared.training.loop.conformal_batches import ACTIVE, active_fraction
from components.shared.training.loop.distributed import World
from components.shared.training.loop.dropout import dropout_mask
from components.shared.training.loop.inference import (
    Positions,
    SplitData,
    infer,
)
from components.shared.training.loop.sampler import step_rng
from components.shared.training.loop.selective_losses import (
    conformal_risk,
    gatekeeper_losses,
    selective_net_loss,
)
from components.shared.training.session.features import FeatureSets, in_blocks
from components.train_gate.config import TrainGateConfig

_FEATURES_AT_A_TIME = 1024  # without gradients: a few megabytes
_MONITOR = "val_select/minus_augrc"


class HeadOutputs(NamedTuple):
    """The heads' outputs for B images.

    Attributes:
        logits: (B, C) of the prediction head.
        scores: (B,) raw gate scores of the selection head; None without one.
    """

    logits: torch.Tensor
    scores: torch.Tensor | None


class Heads(nn.Module):
    """Prediction head and, for SelectiveNet, selection head on features (B, 2h).

    Of several views (B, V, 2h), the latter sees the mean of the views' features, weighted by their
    weights in the prediction (`Head.pooled`).
    """

    def __init__(self, head: Head, *, selective: bool) -> None:
        super().__init__()
        self.head = copy.deepcopy(head)
        self.gate = GateHead(head.linear.in_features) if selective else None

    def forward(
        self, features: torch.Tensor, dropout_mask: torch.Tensor | None = None
    ) -> HeadOutputs:
        """Return the outputs of all heads.

        Args:
            features: (B, 2h) or (B, V, 2h).
            dropout_mask: (B, 2h), as in `Head.forward`; shared by all heads.
        """
        logits = self.head(features, dropout_mask)
        if self.gate is None:
            return HeadOutputs(logits, None)
        pooled = self.head.pooled(features)
        return HeadOutputs(
            logits, self.gate(pooled if dropout_mask is None else pooled * dropout_mask)
        )


class GateTask:
    """The task of training `Heads`; the prediction head starts from the classifier's own."""

    def __init__(
        self,
        config: TrainGateConfig,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
        features: FeatureSets,
    ) -> None:
        self.config, self.world, self.select_labels = config, world, select.labels
        self.heads = Heads(classifier.head, selective=config.gate_loss == SELECTIVE_NET).to(
            world.device
        )
        self.module: nn.Module = self.heads
        self.n_samples, self.monitor = len(train), _MONITOR
        self.batch_size = min(config.global_batch_size, self.n_samples)
        self._batch_loss: BatchLoss | None = None
        self.labels = torch.from_numpy(train.labels).to(world.device)
        self.outcomes = config.outcomes(classifier.spec.class_names)
        self.features = features

    def begin_step(self, batch: Positions, batch_slots: Positions, step: int) -> None:
        """Compute the loss of the global batch, without gradients; collective.

        Coverage, selective risk and the conformal threshold are statistics of a batch. Of the
        global batch, they depend neither on the number of processes nor on micro-batches.
        """
        del batch_slots

        def outputs_of(slots: Positions) -> torch.Tensor:
            return self._outputs(self.module, batch[slots], slots, step)

        outputs = infer(
            outputs_of,
            len(batch),
            self.world,
            "",
            self.config.precision,
            batch_size=_FEATURES_AT_A_TIME,
        ).to(self.world.device)
        labels = self.labels[self.world.on_device(batch)]
        self._batch_loss = BatchLoss.of(outputs, lambda values: self._mean_loss(values, labels))

    def loss(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return these samples' part of the global batch's loss."""
        assert self._batch_loss is not None  # the loop calls begin_step before loss
        outputs = self._outputs(model, positions, batch_slots, step)
        return self._batch_loss.part(outputs, self.world.on_device(batch_slots))

    def epoch_metrics(self, epoch: int) -> dict[str, float]:
        """Return the fraction of the epoch's steps in which the conformal risk acts."""
        if not self.config.conformal_weight:
            return {}
        positive = (self.labels == self.outcomes.positive_index).cpu().numpy()
        return {ACTIVE: active_fraction(positive, self.config, epoch)}

    def evaluate(self) -> dict[str, float]:
        """Return metrics on VAL_SELECT: accuracy, and AUGRC of the gate and of confidence alone."""
        gate = self.gate()

        def columns(features: torch.Tensor) -> torch.Tensor:
            logits, pooled = self.heads(features).logits, self.heads.head.pooled(features)
            scores = (gate.scores(pooled, logits), Gate(None).scores(pooled, logits))
            values = (logits.argmax(dim=1), *scores)
            return torch.stack([value.double() for value in values], dim=1)

        found = in_blocks(columns, self.features.select, self.world).cpu().numpy()
        wrong = found[:, 0] != self.select_labels
        area = float(augrc(found[:, 1], wrong))
        confidence = found[:, 2]

        return {
            "val_select/acc": float(1 - wrong.mean()),
            "val_select/augrc": area,
            "val_select/augrc_of_confidence": float(augrc(confidence, wrong)),
            _MONITOR: -area,
        }

    def gate(self) -> Gate:
        """Return the gate with the present weights."""
        return Gate(self.heads.gate)

    def _outputs(
        self, model: nn.Module, positions: Positions, batch_slots: Positions, step: int
    ) -> torch.Tensor:
        """Return the heads' outputs (n, C), or (n, C + 1) with the raw gate scores.

        Every step draws one cached augmentation per sample.
        """
        rng = step_rng(self.config.seed, step, GateStream.CHOICE_OF_CACHED_AUGMENTATION)
        chosen = rng.integers(self.features.train.n_augmentations, size=self.batch_size)
        taken = self.features.train.take(positions, chosen[batch_slots])
        features = self.world.on_device(taken)
        outputs: HeadOutputs = model(features, self._head_dropout(step, batch_slots))
        if outputs.scores is None:
            return outputs.logits
        return torch.cat([outputs.logits, outputs.scores[:, None]], dim=1)

    def _mean_loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch from `_outputs` and labels (B,)."""
        config, logits = self.config, outputs
        if self.heads.gate is None:
            loss = gatekeeper_losses(logits, labels, config.gatekeeper_weight).mean()
        else:
            logits, scores = outputs[:, :-1], outputs[:, -1]
            losses = F.cross_entropy(logits, labels, reduction="none")
            loss = selective_net_loss(losses, scores.sigmoid(), config.gate_coverage)

        if not config.conformal_weight:
            return loss
        positive = self.outcomes.positive_index
        probabilities = logits.softmax(dim=1)[:, positive]
        risk = conformal_risk(probabilities, labels == positive, config.conformal_alpha)
        return loss if risk is None else loss + config.conformal_weight * risk

    def _head_dropout(self, step: int, batch_slots: Positions) -> torch.Tensor | None:
        """Return the dropout mask (n, 2h) of these batch slots."""
        return dropout_mask(
            self.config.dropout,
            batch_slots,
            self.features.train.width,
            self.config.seed,
            step,
            GateStream.DROPOUT,
            self.world.device,
        )
