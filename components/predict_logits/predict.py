r"""The torchrun entry of predict_logits: one rank's share of the images of VAL_CALIB and VAL_TEST.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.predict_logits.predict --config job.json
"""

from pathlib import Path

import numpy as np

from components.predict_logits.config import PredictLogitsConfig
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.classifier import Classifier
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData, predict_corrupted, predict_views
from components.shared.training.session.rank import run_rank
from components.shared.vision.corruptions import LEVELS


def predict_splits(
    config: PredictLogitsConfig,
    dataset: Path,
    splits: Path,
    checkpoint: Path,
    work: Path,
    world: World,
) -> None:
    """The main rank leaves in `work`, float32, in the order of the split's ids: `<split>.npy` (N,
    K) logits; of a model of several views `<split>-full-image.npy` (N,), and of its student
    `<split>-distilled.npy` (N, 2); and under the deployment's distortions `VAL_TEST-corrupted.npy`
    (L, N, K)."""
    data, assignment = Dataset.open(dataset), read_splits(splits)
    classifier = Classifier.load(checkpoint).to(world.device)
    for split in ("VAL_CALIB", "VAL_TEST"):
        part = SplitData.of(data, assignment, split)
        found = predict_views(classifier, part, world, description=f"logits of {split}")
        files = {
            split: found.logits,
            f"{split}-full-image": found.full_image_margin,
            f"{split}-distilled": found.distilled,
        }
        for name, values in files.items():
            if world.is_main and values is not None:
                np.save(work / f"{name}.npy", values, allow_pickle=False)
    if config.robustness:
        part = SplitData.of(data, assignment, "VAL_TEST")
        levels = [
            predict_corrupted(
                classifier,
                part,
                world,
                level=level,
                seed=config.seed,
                description=f"VAL_TEST at level {level}",
            )
            for level in LEVELS
        ]
        if world.is_main:
            np.save(work / "VAL_TEST-corrupted.npy", np.stack(levels), allow_pickle=False)


if __name__ == "__main__":
    run_rank(predict_splits, PredictLogitsConfig, __doc__)
