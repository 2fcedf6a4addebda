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
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import (
    Positions,
    SplitData,
    cached_features,
    features_of,
)
from components.shared.training.loop.sampler import dropout_mask, global_batch, step_rng
from components.shared.training.loop.selective_losses import (
    conformal_risk,
    gatekeeper_losses,
    selective_net_loss,
)
from components.train_gate.config import TrainGateConfig

_MONITOR = "val_select/minus_augrc"


class HeadOutputs(NamedTuple):
    """The heads' outputs for B images; the last two are None without those heads.

    Attributes:
        logits: (B, C) of the prediction head.
        scores: (B,) raw gate scores of the selection head.
        auxiliary: (B, C) logits of the auxiliary head.
    """

    logits: torch.Tensor
    scores: torch.Tensor | None
    auxiliary: torch.Tensor | None


class Heads(nn.Module):
    """Prediction head and, for SelectiveNet, selection and auxiliary head on features (B, 2h).

    Of several views (B, V, 2h), the latter two see the mean of the views' features, weighted by
    their weights in the prediction (`Head.pooled`).
    """

    def __init__(self, head: Head, *, selective: bool) -> None:
        super().__init__()
        n_classes, n_features = head.linear.weight.shape
        self.head = copy.deepcopy(head)
        self.gate = GateHead(n_features) if selective else None
        self.auxiliary = Head(n_features, n_classes) if selective else None

    def forward(
        self, features: torch.Tensor, dropout_mask: torch.Tensor | None = None
    ) -> HeadOutputs:
        """Return the outputs of all heads.

        Args:
            features: (B, 2h) or (B, V, 2h).
            dropout_mask: (B, 2h), as in `Head.forward`; shared by all heads.
        """
        logits = self.head(features, dropout_mask)
        if self.gate is None or self.auxiliary is None:
            return HeadOutputs(logits, None, None)
        pooled = self.head.pooled(features)
        dropped = pooled if dropout_mask is None else pooled * dropout_mask
        return HeadOutputs(logits, self.gate(dropped), self.auxiliary(pooled, dropout_mask))


class GateTask:
    """The task of training `Heads`; the prediction head starts from the classifier's own."""

    def __init__(
        self,
        config: TrainGateConfig,
        classifier: Classifier,
        train: SplitData,
        select: SplitData,
        world: World,
    ) -> None:
        self.config, self.world, self.select_labels = config, world, select.labels
        self.heads = Heads(classifier.head, selective=config.gate_loss == SELECTIVE_NET).to(
            world.device
        )
        self.module: nn.Module = self.heads
        self.n_samples, self.monitor = len(train), _MONITOR
        self.labels = torch.from_numpy(train.labels).to(world.device)
        self.outcomes = config.outcomes(classifier.spec.class_names)
        # (N, A, 2h) for A augmentations, or (N, A, V, 2h) for V views.
        self.features = cached_features(
            classifier,
            train,
            world,
            n_augmentations=1 if config.augmentation == "none" else config.n_cached_augmentations,
            augmentation=config.augmentation,
            seed=config.seed,
        ).to(world.device)
        self.select_features = features_of(
            classifier, select, world, description="features VAL_SELECT"
        ).to(world.device)

    def loss(
        self,
        model: nn.Module,
        positions: Positions,
        batch_slots: Positions,  # noqa: ARG002
        step: int,
    ) -> torch.Tensor:
        """Return these samples' part of the global batch's loss.

        Coverage, selective risk and the conformal threshold are statistics of a batch. Every
        process computes them over the global batch, which is cheap on cached features, so that they
        depend neither on the number of processes nor on micro-batches. Every step draws one cached
        augmentation per sample.
        """
        config = self.config
        batch = global_batch(self.n_samples, config.global_batch_size, config.seed, step)
        rng = step_rng(config.seed, step, GateStream.CHOICE_OF_CACHED_AUGMENTATION)
        chosen = rng.integers(self.features.shape[1], size=len(batch))

        rows = torch.from_numpy(batch)
        features, labels = self.features[rows, torch.from_numpy(chosen)], self.labels[rows]
        outputs: HeadOutputs = model(features, self._head_dropout(step, len(batch)))
        if outputs.scores is None or outputs.auxiliary is None:
            mean = gatekeeper_losses(outputs.logits, labels, config.gatekeeper_weight).mean()
        else:
            mean = selective_net_loss(
                F.cross_entropy(outputs.logits, labels, reduction="none"),
                F.cross_entropy(outputs.auxiliary, labels, reduction="none"),
                outputs.scores.sigmoid(),
                config.gate_coverage,
            )

        return (mean + self._conformal(outputs.logits, labels)) * len(positions)

    def evaluate(self) -> dict[str, float]:
        """Return metrics on VAL_SELECT: accuracy, and AUGRC of the gate and of confidence alone."""
        with torch.no_grad():
            logits = self.heads(self.select_features).logits
            pooled = self.heads.head.pooled(self.select_features)
            scores = self.gate().scores(pooled, logits)

        wrong = logits.argmax(dim=1).cpu().numpy() != self.select_labels
        area = float(augrc(scores.double().cpu().numpy(), wrong))
        confidence = Gate(None).scores(pooled, logits).double().cpu().numpy()

        return {
            "val_select/acc": float(1 - wrong.mean()),
            "val_select/augrc": area,
            "val_select/augrc_of_confidence": float(augrc(confidence, wrong)),
            _MONITOR: -area,
        }

    def gate(self) -> Gate:
        """Return the gate with the present weights."""
        return Gate(self.heads.gate)

    def _conformal(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the weighted conformal risk; 0 where the batch has too few positives."""
        if not self.config.conformal_weight:
            return logits.new_zeros(())
        positive = self.outcomes.positive_index
        scores = logits.softmax(dim=1)[:, positive]
        risk = conformal_risk(scores, labels == positive, self.config.conformal_alpha)
        return logits.new_zeros(()) if risk is None else self.config.conformal_weight * risk

    def _head_dropout(self, step: int, size: int) -> torch.Tensor | None:
        """Return the dropout mask (size, 2h) of the global batch."""
        shape = (size, self.features.shape[-1])
        mask = dropout_mask(self.config.dropout, shape, self.config.seed, step, GateStream.DROPOUT)
        return None if mask is None else torch.from_numpy(mask).to(self.world.device)
