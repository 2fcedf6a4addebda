r"""The torchrun entry of predict_logits: one rank's part of the images of VAL_CALIB and VAL_TEST.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.predict_logits.predict --config job.json
"""

from pathlib import Path

import numpy as np

from components.predict_logits.config import PredictLogitsConfig
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.blocks import prepare_blocks
from components.shared.models.classifier import Classifier
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData, predict_corrupted, predict_views
from components.shared.training.session.rank import run_rank
from components.shared.vision.corruptions import SEVERITIES


def predict_splits(
    config: PredictLogitsConfig,
    dataset: Path,
    splits: Path,
    checkpoint: Path,
    work: Path,
    world: World,
) -> None:
    """Predict VAL_CALIB and VAL_TEST; the main rank writes the results to `work`.

    All files are float32, in the order of the split's ids, for N images and C classes:
    `<split>.npy` (N, C) logits; of a multi-view model `<split>-full-image.npy` (N,) margins of the
    full image; of its distilled head `<split>-distilled.npy` (N, 2) logits; and with
    `config.robustness` `VAL_TEST-corrupted.npy` (4, N, C) logits at severities 0 to 3.
    """
    data, assignment = Dataset.open(dataset), read_splits(splits)
    parts = {split: SplitData.of(data, assignment, split) for split in ("VAL_CALIB", "VAL_TEST")}
    classifier = Classifier.load(checkpoint).to(world.device)
    prepare_blocks(classifier.backbone, config)

    for split, part in parts.items():
        found = predict_views(
            classifier,
            part,
            world,
            precision=config.precision,
            description=f"logits of {split}",
        )
        files = {
            split: found.logits,
            f"{split}-full-image": found.full_image_margin,
            f"{split}-distilled": found.distilled,
        }
        for name, values in files.items():
            if world.is_main and values is not None:
                np.save(work / f"{name}.npy", values, allow_pickle=False)

    if config.robustness:
        corrupted = [
            predict_corrupted(
                classifier,
                parts["VAL_TEST"],
                world,
                severity=severity,
                seed=config.seed,
                precision=config.precision,
                description=f"VAL_TEST at severity {severity}",
            )
            for severity in SEVERITIES
        ]
        if world.is_main:
            np.save(work / "VAL_TEST-corrupted.npy", np.stack(corrupted), allow_pickle=False)


if __name__ == "__main__":
    run_rank(predict_splits, PredictLogitsConfig, __doc__)
