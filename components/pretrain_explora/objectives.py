"""Self-distillation losses (DINO, iBOT, KoLeo) and the centering that prevents collapse.

DINO (Caron et al. 2021, arXiv 2104.14294), iBOT (Zhou et al. 2022, arXiv 2111.07832), KoLeo and
Sinkhorn-Knopp centering as in DINOv2 (Oquab et al. 2023, arXiv 2304.07193, section 4). Sums over
samples run over the global batch, for any number of processes.
"""

import torch
from torch.nn import functional as F

from components.shared.training.loop.distributed import World

STUDENT_TEMPERATURE = 0.1  # as published
_N_SINKHORN_ITERATIONS = 3  # as published
_CENTER_DECAY = 0.9  # per step, as published
_EPSILON = 1e-8  # keeps the logarithm of a zero distance finite


def sinkhorn(logits: torch.Tensor, temperature: float, world: World) -> torch.Tensor:
    """Return targets whose rows sum to 1 and whose columns have nearly equal sums over all ranks.

    Three iterations of Sinkhorn-Knopp on exp(logits / temperature) (Caron et al. 2020, arXiv
    2006.09882, section 3.1); collective.

    Args:
        logits: (n, K) cosines of this rank's samples with the prototypes.
        temperature: The teacher's temperature.
        world: The ranks.

    Returns:
        (n, K) float32.
    """
    # Cosines are at most 1. In double precision the smallest exponential of a sharp teacher does
    # not underflow.
    # In place: with 65,536 prototypes, this is the largest tensor of a step.
    q = logits.double().sub_(1).div_(temperature).exp_()
    for _ in range(_N_SINKHORN_ITERATIONS):
        q.div_(world.sum(q.sum(dim=0, keepdim=True)).clamp_min_(torch.finfo(q.dtype).tiny))
        q.div_(q.sum(dim=1, keepdim=True))
    return q.float()


def centered(
    logits: torch.Tensor, center: torch.Tensor, temperature: float, world: World
) -> torch.Tensor:
    """Return targets softmax((logits - center) / temperature), then update `center` in place.

    The update is that of Caron et al. 2021, equation 4, with the mean over all ranks; collective.

    Args:
        logits: (n, K) of this rank's samples.
        center: (K,) running mean of the logits.
        temperature: The teacher's temperature.
        world: The ranks.

    Returns:
        (n, K) float32.
    """
    logits = logits.float()
    targets = torch.softmax((logits - center) / temperature, dim=1)

    # The sum and, in the last element, the count: one collective call.
    total = world.sum(torch.cat([logits.sum(dim=0), logits.new_tensor([float(len(logits))])]))
    if total[-1] > 0:
        center.lerp_(total[:-1] / total[-1], 1 - _CENTER_DECAY)
    return targets


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy (...) of student logits (..., K) with targets (..., K)."""
    return -(targets * F.log_softmax(logits.float() / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)


def koleo(features: torch.Tensor) -> torch.Tensor:
    """Return -log of each image's distance to its nearest neighbour in the batch, (B,) float32.

    Sablayrolles et al. 2019 (arXiv 1806.03198, equation 2), of features (B, D) that are scaled to
    unit length; zeros for a batch of one image. Gradients flow through the image and through its
    neighbour.
    """
    if len(features) < 2:
        return features.sum(dim=1) * 0

    # Half precision would not tell near neighbours apart.
    with torch.autocast(features.device.type, enabled=False):
        z = F.normalize(features.float(), dim=1)
        similarity = z.detach() @ z.detach().T
        # Below any cosine: an image is not its own neighbour.
        similarity.fill_diagonal_(-2.0)
        distance = F.pairwise_distance(z, z[similarity.argmax(dim=1)], eps=_EPSILON)

    return -torch.log(distance + _EPSILON)
