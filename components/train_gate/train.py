r"""The torchrun entry of train_gate: one rank of training, then inference on VAL_CALIB, VAL_TEST.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.train_gate.train --config job.json
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.options import PREDICTOR_PRECISION
from components.shared.data.dataset import Dataset
from components.shared.data.features import FeatureRecipe
from components.shared.data.splits import read_splits
from components.shared.models.blocks import prepare_blocks
from components.shared.models.classifier import Classifier
from components.shared.models.gate import Gate
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData, predict_columns
from components.shared.training.loop.measurements import Measurements
from components.shared.training.loop.record import write_metrics
from components.shared.training.session.features import computed_features, opened_features
from components.shared.training.session.fit import FitResult, fit
from components.shared.training.session.rank import run_rank
from components.train_gate.config import TrainGateConfig
from components.train_gate.task import GateTask


def train(
    config: TrainGateConfig,
    dataset: Path,
    splits: Path,
    checkpoint: Path,
    work: Path,
    world: World,
    checkpoints: CheckpointWriter,
    train_features: Path | None = None,
    val_select_features: Path | None = None,
) -> None:
    """Train one rank; the main rank writes the results to `work`.

    Features are computed where no artifact has them.

    `checkpoint/` is the classifier with its gate and metrics, `<split>.npy` (N, C) logits,
    `<split>-gate.npy` (N,) raw gate scores of VAL_CALIB and VAL_TEST, `training.json` the summary.
    """
    data, assignment = Dataset.open(dataset), read_splits(splits)
    parts = {
        split: SplitData.of(data, assignment, split)
        for split in ("TRAIN", "VAL_SELECT", "VAL_CALIB", "VAL_TEST")
    }
    classifier = Classifier.load(checkpoint).to(world.device)
    prepare_blocks(classifier.backbone, config)
    learnt = (parts["TRAIN"], parts["VAL_SELECT"])
    features = opened_features(train_features, val_select_features) or computed_features(
        classifier, *learnt, FeatureRecipe.of(config), world, checkpoints.parts
    )
    task = GateTask(config, classifier, *learnt, world, features)
    out = work / "checkpoint"
    if world.is_main:
        out.mkdir()
    measurements = Measurements(world, profile=config.profile)
    result = fit(
        task, config, world, lambda history: write_metrics(out, history), checkpoints, measurements
    )
    if world.is_main:
        measurements.write(work / "measurements.html")
    task.module.eval()
    classifier.head, gate = task.heads.head, task.gate()

    for split in ("VAL_CALIB", "VAL_TEST"):
        found = predict_columns(
            classifier,
            parts[split],
            world,
            _outputs(classifier, gate),
            f"logits of {split}",
            precision=PREDICTOR_PRECISION,
        ).numpy()
        if world.is_main:
            np.save(work / f"{split}.npy", found[:, :-1].copy(), allow_pickle=False)
            np.save(work / f"{split}-gate.npy", found[:, -1].copy(), allow_pickle=False)

    if world.is_main:
        classifier.save(out)
        gate.save(out)
        summary = _summary(config, result, world)
        write_json(out / "training.json", summary)
        write_json(work / "training.json", summary)


def _outputs(classifier: Classifier, gate: Gate) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function of features (n, ...) that gives logits and gate scores (n, C + 1)."""

    def outputs(features: torch.Tensor) -> torch.Tensor:
        logits = classifier.head(features)
        scores = gate.scores(classifier.head.pooled(features), logits)
        return torch.cat([logits, scores[:, None]], dim=1)

    return outputs


def _summary(config: TrainGateConfig, result: FitResult, world: World) -> dict[str, object]:
    best = {name: round(value, 9) for name, value in result.history[result.best_epoch - 1].items()}
    return {
        "gate_loss": config.gate_loss,
        "best_epoch": result.best_epoch,
        "best_metrics": best,
        "epochs_run": len(result.history),
        "stopped_early": result.stopped_early,
        "n_processes": world.size,
        "computation": config.computation() | {"device": world.device.type},
    }


if __name__ == "__main__":
    run_rank(train, TrainGateConfig, __doc__)
