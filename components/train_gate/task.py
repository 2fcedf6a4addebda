"""What is the gate's loss, and when is a gate better than another? On cached features of a fixed
backbone.
"""

import copy

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
    cached_views,
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


class Heads(nn.Module):
    """Prediction head, and for SelectiveNet the selection and the auxiliary head, on features (B,
    2h).

    Of several views (B, V, 2h), the latter two see the views' features by their share in the
    prediction.
    """

    def __init__(self, head: Head, *, selective: bool) -> None:
        super().__init__()
        n_classes, n_features = head.linear.weight.shape
        self.head = copy.deepcopy(head)
        self.gate = GateHead(n_features) if selective else None
        self.auxiliary = Head(n_features, n_classes) if selective else None

    def forward(
        self, features: torch.Tensor, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(logits, raw gate scores, auxiliary logits); the last two are None without those
        heads.
        """
        logits = self.head(features, keep)
        if self.gate is None or self.auxiliary is None:
            return logits, None, None
        pooled = self.head.pooled(features)
        kept = pooled if keep is None else pooled * keep
        return logits, self.gate(kept), self.auxiliary(pooled, keep)


class GateTask:
    """Trains `Heads`; the classifier's own head is where the prediction head starts."""

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
        self.positive = classifier.spec.class_names.index(config.positive_class)
        n_views = 1 if config.augmentation == "none" else config.n_cached_augmentations
        self.features = cached_views(
            classifier,
            train,
            world,
            n_views=n_views,
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
        """These samples' share of the whole global batch's loss.

        Coverage, selective risk and the conformal threshold are statistics of a batch. Every
        process takes them over the global batch, cheap on cached features, so that they depend
        neither on the number of processes nor on micro-batches. Each sample shows one of its cached
        views, drawn anew every step.
        """
        batch = global_batch(self.n_samples, self.config.global_batch_size, self.config.seed, step)
        rng = step_rng(self.config.seed, step, GateStream.CHOICE_OF_CACHED_AUGMENTATION)
        view = rng.integers(self.features.shape[1], size=len(batch))
        rows = torch.from_numpy(batch)
        features, labels = self.features[rows, torch.from_numpy(view)], self.labels[rows]
        logits, scores, auxiliary = model(features, self._keep_mask(step, len(batch)))
        if scores is None:
            mean = gatekeeper_losses(logits, labels, self.config.gatekeeper_weight).mean()
        else:
            losses = F.cross_entropy(logits, labels, reduction="none")
            auxiliary_losses = F.cross_entropy(auxiliary, labels, reduction="none")
            mean = selective_net_loss(
                losses, auxiliary_losses, scores.sigmoid(), self.config.gate_coverage
            )
        return (mean + self._conformal(logits, labels)) * len(positions)

    def evaluate(self) -> dict[str, float]:
        """Accuracy on VAL_SELECT, and how well the gate ranks right answers before wrong ones
        (AUGRC).
        """
        with torch.no_grad():
            logits, _, _ = self.heads(self.select_features)
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
        """The gate with the present weights."""
        return Gate(self.heads.gate)

    def _conformal(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not self.config.conformal_weight:
            return logits.new_zeros(())
        scores = logits.softmax(dim=1)[:, self.positive]
        risk = conformal_risk(scores, labels == self.positive, self.config.conformal_alpha)
        return logits.new_zeros(()) if risk is None else self.config.conformal_weight * risk

    def _keep_mask(self, step: int, size: int) -> torch.Tensor | None:
        mask = dropout_mask(
            self.config.dropout,
            (size, self.features.shape[-1]),
            self.config.seed,
            step,
            GateStream.DROPOUT,
        )
        return None if mask is None else torch.from_numpy(mask).to(self.world.device)
