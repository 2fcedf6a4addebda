r"""The torchrun entry of train_baseline: one rank of training, then inference on VAL_SELECT.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.train_baseline.train --config job.json
"""

import math
from pathlib import Path

import numpy as np

from components.shared.contracts.adaptations import FROZEN
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.listing import say
from components.shared.data.dataset import Dataset
from components.shared.data.features import FeatureRecipe
from components.shared.data.splits import read_splits
from components.shared.models import adapters
from components.shared.models.blocks import prepare_blocks
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.classifier.build import build
from components.shared.training.classifier.tasks import FrozenTask, ImageTask
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData, predict
from components.shared.training.loop.measurements import Measurements
from components.shared.training.loop.record import write_metrics
from components.shared.training.session.features import computed_features, opened_features
from components.shared.training.session.fit import FitResult, fit
from components.shared.training.session.rank import run_rank
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.distilled_head import distil

_N_PROBED = 2  # images on which the merged backbone is compared with the trained one


def train(
    config: TrainBaselineConfig,
    dataset: Path,
    splits: Path,
    backbone: Path,
    work: Path,
    world: World,
    checkpoints: CheckpointWriter,
    train_features: Path | None = None,
    val_select_features: Path | None = None,
) -> None:
    """Train one rank; the main rank writes the results to `work`.

    A frozen backbone's features are computed where no artifact has them.

    `checkpoint/` is the classifier with its adapter and metrics, `VAL_SELECT.npy` its logits (N, C)
    on VAL_SELECT, `training.json` the summary.
    """
    data, assignment = Dataset.open(dataset), read_splits(splits)
    parts = {split: SplitData.of(data, assignment, split) for split in ("TRAIN", "VAL_SELECT")}
    classifier = build(config, data, backbone).to(world.device)
    prepare_blocks(classifier.backbone, config)
    counts = adapters.trainable_counts(classifier)
    learnt = (parts["TRAIN"], parts["VAL_SELECT"])
    task: FrozenTask | ImageTask
    features = None
    if config.mode == FROZEN:
        features = opened_features(train_features, val_select_features) or computed_features(
            classifier.eval(), *learnt, FeatureRecipe.of(config), world, checkpoints.parts
        )
        task = FrozenTask(config, classifier, *learnt, world, features)
    else:
        task = ImageTask(config, classifier, *learnt, world)

    out = work / "checkpoint"

    if world.is_main:
        out.mkdir()
        say(
            f"{config.mode}: training {counts[0]:,} of {counts[1]:,} parameters, {world.size}"
            " process(es)"
        )

    measurements = Measurements(world, profile=config.profile)
    result = fit(
        task, config, world, lambda history: write_metrics(out, history), checkpoints, measurements
    )
    if world.is_main:
        measurements.write(work / "measurements.html")
    classifier.eval()

    # The adapter is stored before it is merged into the weights.
    if world.is_main:
        adapters.save_adapter(classifier.backbone, out / "adapter")
    probed = np.arange(min(_N_PROBED, len(parts["VAL_SELECT"])))
    probe = parts["VAL_SELECT"].pixels(probed, classifier.spec, world.device)
    classifier.backbone = adapters.merge(classifier.backbone, probe.flatten(0, -4))

    distilled: dict[str, float] = {}

    if config.distilled_head:
        classifier.distilled_head, distilled = distil(classifier, *learnt, world, config, features)

    logits = predict(
        classifier,
        parts["VAL_SELECT"],
        world,
        precision=config.precision,
        description="logits of VAL_SELECT",
    )

    if world.is_main:
        np.save(work / "VAL_SELECT.npy", logits, allow_pickle=False)
        classifier.save(out)
        summary = _summary(config, result, counts, world)
        if distilled:
            summary["distilled_head"] = {name: round(value, 9) for name, value in distilled.items()}
        write_json(out / "training.json", summary)
        write_json(work / "training.json", summary)


def _summary(
    config: TrainBaselineConfig, result: FitResult, counts: tuple[int, int], world: World
) -> dict[str, object]:
    # Without images of every class, an area under a curve has no value.
    best = {
        name: round(value, 9)
        for name, value in result.history[result.best_epoch - 1].items()
        if math.isfinite(value)
    }
    return {
        "best_epoch": result.best_epoch,
        "best_metrics": best,
        "epochs_run": len(result.history),
        "stopped_early": result.stopped_early,
        "micro_batch_size": result.micro_batch_size,
        "trainable_parameters": counts[0],
        "parameters": counts[1],
        "n_processes": world.size,
        "computation": config.computation() | {"device": world.device.type},
        "n_cached_augmentations": (
            config.n_cached_augmentations
            if config.mode == FROZEN and config.augmentation != "none"
            else 0
        ),
    }


if __name__ == "__main__":
    run_rank(train, TrainBaselineConfig, __doc__)
