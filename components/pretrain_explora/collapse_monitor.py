"""Do the features still tell images apart, or has the training collapsed?"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from components.pretrain_explora.train_crops import Pixels, Positions
from components.shared.contracts.errors import PermanentError
from components.shared.models.backbone import patch_and_cls
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import infer

_WATCHED = 256  # images
# Of what there was at the start. A new head says little about the images before it says more: a
# collapsed one says a millionth.
_LEAST_SHARES = {"feature_variance": 0.1, "information": 0.01}
_SMALLEST = 1e-12

Assign = Callable[[torch.Tensor], torch.Tensor]


class CollapseMonitor:
    """Measures on the first images of TRAIN, in the order of their ids, which are digests: a random
    sample.

    `assign`, where the objective has a teacher: images (n, 3, S, S) -> its probabilities (n, K) of
    the prototypes.
    """

    def __init__(
        self, pixels: Pixels, backbone: PreTrainedModel, world: World, assign: Assign | None = None
    ) -> None:
        self._pixels, self._world, self._assign = pixels, world, assign
        self._rows = np.arange(min(_WATCHED, len(pixels.images)), dtype=np.int64)
        self._at_start = self._measures(backbone)

    def check(self, backbone: PreTrainedModel) -> dict[str, float]:
        """feature_variance of the unit-length features [CLS; mean patch]: 1 minus the squared
        length of their mean.

        With a teacher also, in nats, teacher_entropy, the mean entropy of an image's prototypes,
        and information, how far the entropy of their mean is above it: how much a prototype says
        about the image. Raises PermanentError where hardly anything of the start's variance (a
        tenth) or information (a hundredth) is left: then every image gets the same answer, be it
        one prototype or all of them equally.
        """
        now = self._measures(backbone)
        lost = [
            name
            for name, share in _LEAST_SHARES.items()
            if name in now and not now[name] >= max(share * self._at_start[name], _SMALLEST)
        ]
        if lost:
            said = ", ".join(
                f"{name} {now[name]:.3g} after {self._at_start[name]:.3g} at the start"
                for name in lost
            )
            raise PermanentError(
                f"pre-training collapsed: {said}; lower pretrain_explora.learning_rate or"
                " explora_teacher_temperature, or raise explora_koleo_weight"
            )
        return now

    def _measures(self, backbone: PreTrainedModel) -> dict[str, float]:
        backbone.eval()
        z = F.normalize(self._each(lambda pixels: patch_and_cls(backbone, pixels)).double(), dim=1)
        found = {"feature_variance": float(1 - z.mean(dim=0).square().sum())}
        if self._assign is not None:
            p = self._each(self._assign).double()
            entropy = float(torch.special.entr(p).sum(dim=1).mean())
            found["teacher_entropy"] = entropy
            found["information"] = float(torch.special.entr(p.mean(dim=0)).sum()) - entropy
        return found

    def _each(self, function: Assign) -> torch.Tensor:
        """(N, ...) float32 `function` of the watched images (n, 3, S, S), on the CPU, equal on
        every rank.
        """

        def of_rows(rows: Positions) -> torch.Tensor:
            return function(self._pixels.plain(self._rows[rows]))

        return infer(of_rows, len(self._rows), self._world, "", "fp32")
