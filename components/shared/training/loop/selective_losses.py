"""Losses for deferral and for errors at a threshold: Gatekeeper, SelectiveNet, conformal risk.

Batch means are over the samples that are passed: train_gate passes the whole global batch,
train_baseline a process's micro-batch.
"""

import math

import torch
from torch.nn import functional as F

# SelectiveNet's published weights: of the coverage constraint, and of the selective against the
# auxiliary loss.
_CONSTRAINT_WEIGHT, _SELECTIVE_FRACTION = 32.0, 0.5


def selective_net_loss(
    losses: torch.Tensor, auxiliary_losses: torch.Tensor, gate: torch.Tensor, coverage: float
) -> torch.Tensor:
    """Scalar loss of Geifman and El-Yaniv, "SelectiveNet", ICML 2019, eq. 4 to 6.

    losses, auxiliary_losses: (B,) of the prediction and the auxiliary head; gate: (B,) in (0, 1);
    coverage: target. The selective risk is divided by the mean gate, as in the paper (the authors'
    code leaves that out).
    """
    covered = gate.mean()
    selective_risk = (losses * gate).mean() / covered
    missing = (coverage - covered).clamp_min(0)
    selective = selective_risk + _CONSTRAINT_WEIGHT * missing**2
    return _SELECTIVE_FRACTION * selective + (1 - _SELECTIVE_FRACTION) * auxiliary_losses.mean()


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
    index = count - 1 - int(alpha * (count + 1) - 1 + 1e-9)
    if alpha * (count + 1) < 1 - 1e-9:
        return None
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
