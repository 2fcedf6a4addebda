"""Losses for deferral and for errors at a threshold: Gatekeeper, SelectiveNet, conformal risk.

Batch means are over the samples that are passed; the tasks pass the whole global batch
(`batch_loss`).
"""

import math

import torch
from torch.nn import functional as F

from components.shared.training.loop.conformal_batches import least_positives

_CONSTRAINT_WEIGHT = 32.0  # of SelectiveNet's coverage constraint, as published


def selective_net_loss(losses: torch.Tensor, gate: torch.Tensor, coverage: float) -> torch.Tensor:
    """Scalar loss of Geifman and El-Yaniv, "SelectiveNet", ICML 2019, eq. 4 and 5.

    losses: (B,) of the prediction head; gate: (B,) in (0, 1); coverage: target. The selective risk
    is divided by the mean gate, as in the paper (the authors' code leaves that out). Eq. 6 adds the
    loss of an auxiliary head, by which the layers below learn from all samples: here these are
    fixed, and nothing that is kept would get a gradient of it.
    """
    covered = gate.mean()
    selective_risk = (losses * gate).mean() / covered
    missing = (coverage - covered).clamp_min(0)
    return selective_risk + _CONSTRAINT_WEIGHT * missing**2


def gatekeeper_losses(logits: torch.Tensor, labels: torch.Tensor, weight: float) -> torch.Tensor:
    """Return (B,) losses of Gatekeeper (arXiv 2502.19335, NeurIPS 2025).

    Correct samples are fitted, wrong ones are made unsure. weight * CE where the prediction is
    right, (1 - weight) * KL(p || uniform) where it is wrong. A low weight defers better and answers
    worse.
    """
    log_p = logits.log_softmax(dim=1)
    cross_entropy = F.nll_loss(log_p, labels, reduction="none")
    divergence = (log_p.exp() * log_p).sum(dim=1) + math.log(logits.shape[1])
    correct = (logits.argmax(dim=1) == labels).to(logits.dtype)
    return weight * correct * cross_entropy + (1 - weight) * (1 - correct) * divergence


def conformal_threshold(positive_scores: torch.Tensor, alpha: float) -> torch.Tensor | None:
    """Return the largest conformal threshold that misses at most alpha of the positives.

    A differentiable scalar. It is the order statistic of `positive_scores` (n,) that keeps (misses
    + 1) / (n + 1) <= alpha, averaged with its neighbours within 0.25 % of the ranks, so that more
    than one sample gets a gradient; None where n is too small.
    """
    ordered = positive_scores.sort(descending=True).values
    count = len(ordered)
    if count < least_positives(alpha):
        return None
    index = count - 1 - int(alpha * (count + 1) - 1 + 1e-9)
    reach = int(0.0025 * count)
    return ordered[max(index - reach, 0) : index + reach + 1].mean()


def conformal_risk(
    scores: torch.Tensor, positive: torch.Tensor, alpha: float, temperature: float = 0.1
) -> torch.Tensor | None:
    """Return the smoothed false positive rate at the conformal threshold, a scalar.

    "Conformal risk training", arXiv 2510.08748. scores: (B,) in [0, 1]; positive: (B,) bool. The
    first half of the batch gives the threshold, the second half the loss mean(sigmoid((score of a
    negative - threshold) / temperature)); None where either half has too few samples.
    """
    half = len(scores) // 2
    threshold = conformal_threshold(scores[:half][positive[:half]], alpha)
    negatives = scores[half:][~positive[half:]]
    if threshold is None or len(negatives) == 0:
        return None
    return torch.sigmoid((negatives - threshold) / temperature).mean()
