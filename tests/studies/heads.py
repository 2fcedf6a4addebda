"""Leave-one-day-out margins from heads on cached features.

Heads are trained by the project's own loop on bags of views, with the phase's recipe and without
selection of an epoch; or by scikit-learn's logistic regression on standardised features, which
other studies report.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from components.shared.contracts.options import LoopConfig
from components.shared.models.classifier import BagHead, new_head
from components.shared.training.loop.distributed import World
from components.shared.training.loop.dropout import dropout_mask
from components.shared.training.session.fit import fit
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec
from tests.studies.features import CLASSES

Values = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
EPOCHS, DROPOUT, SMOOTHING, BATCH = 60, 0.3, 0.1, 64
_DROPOUT = 0


@dataclass(frozen=True)
class Scores:
    """Out-of-fold margins (N,) of every image; with `views` also of the full image alone."""

    margin: Floats
    full_image_margin: Floats | None = None
    views: ViewSpec | None = None


Head = Callable[
    [Values, Bools, Values], Scores
]  # features and truth to train on, features to score


class _BagTask:
    """Balanced, smoothed cross-entropy of bags; the last epoch counts."""

    monitor = None

    def __init__(self, features: Values, truth: Bools, head: nn.Module) -> None:
        self.module, self.n_samples = head, len(truth)
        self._features = torch.from_numpy(features)
        self._labels = torch.from_numpy(truth.astype(np.int64))
        self._weights = torch.from_numpy(
            (len(truth) / (2 * np.bincount(truth, minlength=2))).astype(np.float32)
        )

    def loss(
        self, model: nn.Module, positions: np.ndarray, batch_slots: np.ndarray, step: int
    ) -> torch.Tensor:
        """Summed over the bags."""
        n_features, device = self._features.shape[-1], self._features.device
        mask = dropout_mask(DROPOUT, batch_slots, n_features, 0, step, _DROPOUT, device)
        logits = model(self._features[positions], mask)
        labels = self._labels[positions]
        return F.cross_entropy(
            logits, labels, self._weights, label_smoothing=SMOOTHING, reduction="sum"
        )

    def evaluate(self) -> dict[str, float]:
        """Nothing: the last epoch counts."""
        return {}


def loop_head(views: ViewSpec | None, seed: int = 0) -> Head:
    """A head trained by `fit` on bags; without views on the whole image."""

    def head(train: Values, truth: Bools, score: Values) -> Scores:
        torch.manual_seed(seed)
        spec = ClassifierSpec(CLASSES, 224, (0.0,), (1.0,), "", views)
        trained = new_head(train.shape[-1], spec)
        squeezed = (lambda x: x) if views else (lambda x: x[:, 0])
        config = LoopConfig(
            epochs=EPOCHS,
            learning_rate=1e-3,
            global_batch_size=BATCH,
            weight_decay=0.01,
            warmup_ratio=0.1,
            gradient_clip=1.0,
            ema_decay=0.99,
            seed=seed,
        )
        with contextlib.redirect_stderr(
            io.StringIO()
        ):  # hundreds of progress bars of a tenth of a second
            fit(_BagTask(squeezed(train), truth, trained), config, World(0, 1, torch.device("cpu")))
        with torch.inference_mode():
            inputs = torch.from_numpy(squeezed(score))
            logits = trained.eval()(inputs).double().numpy()
            whole = (
                trained.margins(inputs)[:, 0].double().numpy()
                if isinstance(trained, BagHead)
                else None
            )
        return Scores(logits[:, 1] - logits[:, 0], whole, views)

    return head


def logistic_regression(pool: Callable[[Values], Values]) -> Head:
    """scikit-learn's, balanced, on standardised features (N, F) that `pool` makes of (N, V, 2h)."""

    def head(train: Values, truth: Bools, score: Values) -> Scores:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
        )
        model.fit(pool(train), truth)
        return Scores(np.asarray(model.decision_function(pool(score)), dtype=np.float64))

    return head


def leave_one_day_out(
    features: Callable[[str], Values], truth: Bools, days: npt.NDArray[np.str_], head: Head
) -> Scores:
    """Return scores of every image by a head that was trained on the other days.

    `features(day)` are the features for leaving out `day`.
    """
    margin, whole, views = np.zeros(len(truth)), np.full(len(truth), np.nan), None
    for day in np.unique(days):
        values, out = features(str(day)), days == day
        found = head(values[~out], truth[~out], values[out])
        margin[out] = found.margin
        if found.full_image_margin is not None:
            whole[out], views = found.full_image_margin, found.views
    return Scores(margin, whole if views else None, views)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """The process group of one that the loop expects."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
