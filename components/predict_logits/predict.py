r"""The torchrun entry of predict_logits: one rank's part of the images of VAL_CALIB and VAL_TEST.

The images of the drift reference are seen once more, in fp32 whatever the precision of the logits:
new images will be compared by the predictor's features.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.predict_logits.predict --config job.json
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from components.predict_logits.config import PredictLogitsConfig
from components.predict_logits.explanations import split_errors
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.options import PREDICTOR_PRECISION
from components.shared.data.dataset import Dataset
from components.shared.data.drift_reference import (
    MOST_IMAGES,
    DriftReference,
    as_half,
    write_reference,
)
from components.shared.data.splits import read_splits
from components.shared.models.blocks import prepare_blocks
from components.shared.models.classifier import Classifier, normalise
from components.shared.policies.calibration_split import one_per_group
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import (
    SplitData,
    predict_columns,
    predict_corrupted,
    predict_views,
)
from components.shared.training.session.rank import run_rank
from components.shared.vision.arithmetic import single_precision
from components.shared.vision.corruptions import SEVERITIES
from components.shared.vision.reference_image import reference_image


def predict_splits(
    config: PredictLogitsConfig,
    dataset: Path,
    splits: Path,
    checkpoint: Path,
    work: Path,
    world: World,
) -> None:
    """Predict VAL_CALIB and VAL_TEST; the main rank writes the results to `work`.

    `drift_reference/` holds the files of that artifact. All other files are float32, in the order
    of the split's ids, for N images and C classes: `<split>.npy` (N, C) logits; of a multi-view
    model `<split>-full-image.npy` (N,) margins of the full image; of its distilled head
    `<split>-distilled.npy` (N, 2) logits; with `config.robustness` `VAL_TEST-corrupted.npy`
    (4, N, C) logits at severities 0 to 3; and `VAL_TEST-explained.npy`, what `split_errors` returns
    of some images. `prediction.json` says how the logits were computed.
    """
    data, assignment = Dataset.open(dataset), read_splits(splits)
    parts = {split: SplitData.of(data, assignment, split) for split in ("VAL_CALIB", "VAL_TEST")}
    classifier = Classifier.load(checkpoint).to(world.device)
    prepare_blocks(classifier.backbone, config)

    logits = {}
    for split, part in parts.items():
        found = predict_views(
            classifier,
            part,
            world,
            precision=config.precision,
            description=f"logits of {split}",
        )
        logits[split] = found.logits
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

    train = SplitData.of(data, assignment, "TRAIN")
    reference = _reference(classifier, parts["VAL_CALIB"], train, config.seed, world)
    if world.is_main:
        write_reference(work / "drift_reference", reference)

    explained = split_errors(classifier, parts["VAL_TEST"], logits["VAL_TEST"], reference, world)
    if world.is_main:
        np.save(work / "VAL_TEST-explained.npy", explained, allow_pickle=False)
        computation = config.computation() | {"device": world.device.type}
        write_json(work / "prediction.json", {"computation": computation})


def _reference(
    classifier: Classifier, calib: SplitData, train: SplitData, seed: int, world: World
) -> DriftReference:
    """Return what the classifier computes of one image of each group of VAL_CALIB and of TRAIN."""
    calib_rows, n_groups = _one_per_group(calib, seed)
    train_rows, _ = _one_per_group(train, seed)
    features, logits = _embedded(classifier, calib, calib_rows, world, "drift reference")
    support, _ = _embedded(classifier, train, train_rows, world, "training data's support")

    return DriftReference(
        class_names=calib.data.class_names,
        features=as_half(features),
        logits=logits,
        labels=calib.labels[calib_rows],
        support=as_half(support),
        probe=as_half(_probe(classifier, world)),
        n_groups=n_groups,
    )


def _one_per_group(part: SplitData, seed: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return one row of each group, ascending, at most `MOST_IMAGES`; and the number of groups."""
    groups = [part.data.samples[position].group for position in part.positions]
    rows = one_per_group(groups, seed)
    kept = np.random.default_rng([seed, len(rows)]).permutation(len(rows))[:MOST_IMAGES]
    return rows[np.sort(kept)], len(rows)


def _embedded(
    classifier: Classifier,
    part: SplitData,
    rows: npt.NDArray[np.int64],
    world: World,
    description: str,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return pooled features (n, 2h) and logits (n, C) of the images `rows`."""
    head = classifier.head

    def columns(features: torch.Tensor) -> torch.Tensor:
        return torch.cat([head.pooled(features), head(features)], dim=1)

    sample = SplitData(part.data, part.positions[rows], part.labels[rows])
    found = predict_columns(
        classifier, sample, world, columns, description, precision=PREDICTOR_PRECISION
    ).numpy()
    n_classes = len(classifier.spec.class_names)

    return found[:, :-n_classes].copy(), found[:, -n_classes:].copy()


def _probe(classifier: Classifier, world: World) -> npt.NDArray[np.float32]:
    """Return the pooled features (2h,) of the reference image."""
    pixels = torch.from_numpy(reference_image(classifier.spec.image_size)).to(world.device)
    with torch.inference_mode(), single_precision(world.device):
        features = classifier.features(normalise(pixels, classifier.spec))
        return np.asarray(classifier.head.pooled(features)[0].cpu().numpy())


if __name__ == "__main__":
    run_rank(predict_splits, PredictLogitsConfig, __doc__)
