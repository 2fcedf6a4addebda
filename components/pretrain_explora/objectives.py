"""What do student and teacher have to agree on, and what keeps them from agreeing on nothing?

DINO (Caron et al. 2021), iBOT (Zhou et al. 2022), KoLeo and Sinkhorn-Knopp centring as in DINOv2
(Oquab et al. 2023, section 4). Sums over samples run over the global batch, whatever the number of
processes.
"""

import torch
from torch.nn import functional as F

from components.shared.training.loop.distributed import World

STUDENT_TEMPERATURE = 0.1
_SINKHORN_ITERATIONS = 3
_CENTRE_DECAY = 0.9
_EPSILON = 1e-8


def sinkhorn(logits: torch.Tensor, temperature: float, world: World) -> torch.Tensor:
    """(n, K) cosines -> (n, K) targets whose rows sum to 1 and whose columns, over all ranks, are
    nearly equally heavy.

    Three iterations of Sinkhorn-Knopp on exp(logits / temperature) (Caron et al. 2020, section
    3.1).
    """
    # Cosines are at most 1; in double precision the smallest exponential of a sharp teacher is
    # still there.
    q = torch.exp((logits.double() - 1) / temperature)
    for _ in range(_SINKHORN_ITERATIONS):
        q = q / world.sum(q.sum(dim=0, keepdim=True)).clamp_min(torch.finfo(q.dtype).tiny)
        q = q / q.sum(dim=1, keepdim=True)
    return q.float()


def centred(
    logits: torch.Tensor, centre: torch.Tensor, temperature: float, world: World
) -> torch.Tensor:
    """(n, K) -> (n, K) targets softmax((logits - centre) / temperature); moves the running `centre`
    (K,) in place.

    Caron et al. 2021, equation 4, with the mean over all ranks.
    """
    logits = logits.float()
    targets = torch.softmax((logits - centre) / temperature, dim=1)
    total = world.sum(torch.cat([logits.sum(dim=0), logits.new_tensor([float(len(logits))])]))
    if total[-1] > 0:
        centre.lerp_(total[:-1] / total[-1], 1 - _CENTRE_DECAY)
    return targets


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(..., K) student logits and targets -> (...)."""
    return -(targets * F.log_softmax(logits.float() / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)


def koleo(features: torch.Tensor, references: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """(n,) -log of the distance to the nearest reference of another image.

    features (n, D) of the student; references (B, D) the same without gradients, of the global
    batch; own (n,) their rows of the same image. Sablayrolles et al. 2019, equation 2, lets the
    neighbour move too, and looks for it in one process's batch; here the loss is a function of the
    global batch. (A lagging teacher's features as references would let all features escape in one
    direction, together.)
    """
    if len(references) < 2:
        return features.sum(dim=1) * 0
    features, references = (
        F.normalize(features.float(), dim=1),
        F.normalize(references.float(), dim=1),
    )
    similarity = features.detach() @ references.T
    similarity[torch.arange(len(features), device=own.device), own] = -2.0
    nearest = references[similarity.argmax(dim=1)]
    return -torch.log(F.pairwise_distance(features, nearest, eps=_EPSILON) + _EPSILON)
