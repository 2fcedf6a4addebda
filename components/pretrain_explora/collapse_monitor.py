"""Detection of collapse: whether features and prototypes still tell images apart."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from components.pretrain_explora.train_crops import Positions, TrainCrops
from components.shared.contracts.errors import PermanentError
from components.shared.models.backbone import patch_and_cls
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import infer

_N_MONITORED = 256  # images
# Smallest fraction of the initial value. Information may fall at first, while a new head learns; a
# collapsed head retains about a millionth of it.
_MIN_FRACTIONS = {"feature_variance": 0.1, "information": 0.01}
_SMALLEST = 1e-12  # a value below it is a collapse whatever the initial value

PixelFunction = Callable[[torch.Tensor], torch.Tensor]


class CollapseMonitor:
    """Measures of diversity on the first images of TRAIN.

    TRAIN is ordered by sample ids, which are digests, so that its first images are a random sample.
    """

    def __init__(
        self,
        crops: TrainCrops,
        backbone: PreTrainedModel,
        world: World,
        prototype_probabilities: PixelFunction | None = None,
    ) -> None:
        """Measure the initial values.

        Args:
            crops: The images of TRAIN.
            backbone: The backbone before training.
            world: The ranks.
            prototype_probabilities: Maps images (n, 3, S, S) to probabilities (n, K) of the
                prototypes; None for an objective without a teacher.
        """
        self._crops, self._world = crops, world
        self._prototype_probabilities = prototype_probabilities
        self._positions = np.arange(min(_N_MONITORED, len(crops.images)), dtype=np.int64)
        self._initial = self._measure(backbone)

    def check(self, backbone: PreTrainedModel) -> dict[str, float]:
        """Return the present measures.

        `feature_variance` is that of the unit-length features [CLS; mean patch]: 1 minus the
        squared length of their mean. With a teacher also, in nats, `teacher_entropy`, the mean
        entropy of an image's prototype probabilities, and `information`, the mutual information of
        image and prototype: the entropy of the mean probabilities minus `teacher_entropy`.

        Raises:
            PermanentError: The variance is below a tenth, or the information below a hundredth, of
                its initial value: all images have the same output, be it one prototype or all of
                them equally.
        """
        present = self._measure(backbone)
        collapsed = []
        for name, fraction in _MIN_FRACTIONS.items():
            if name in present:
                limit = max(fraction * self._initial[name], _SMALLEST)
                # Negated, so that a NaN is a collapse too.
                if not present[name] >= limit:
                    collapsed.append(
                        f"{name} {present[name]:.3g}, {self._initial[name]:.3g} at the start"
                    )

        if collapsed:
            raise PermanentError(
                f"pre-training collapsed: {'; '.join(collapsed)}; lower"
                " pretrain_explora.learning_rate or explora_teacher_temperature, or raise"
                " explora_koleo_weight"
            )

        return present

    def _measure(self, backbone: PreTrainedModel) -> dict[str, float]:
        backbone.eval()
        features = self._map(lambda pixels: patch_and_cls(backbone, pixels))
        z = F.normalize(features.double(), dim=1)
        measures = {"feature_variance": float(1 - z.mean(dim=0).square().sum())}

        if self._prototype_probabilities is not None:
            p = self._map(self._prototype_probabilities).double()
            entropy = float(torch.special.entr(p).sum(dim=1).mean())
            measures["teacher_entropy"] = entropy
            entropy_of_mean = float(torch.special.entr(p.mean(dim=0)).sum())
            measures["information"] = entropy_of_mean - entropy

        return measures

    def _map(self, function: PixelFunction) -> torch.Tensor:
        """Return `function` of the monitored images, (N, ...) float32 on the CPU of every rank."""

        def of_rows(rows: Positions) -> torch.Tensor:
            return function(self._crops.full_images(self._positions[rows]))

        return infer(of_rows, len(self._positions), self._world, "", "fp32")
