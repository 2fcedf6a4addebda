r"""The torchrun entry of tune_training: one rank of the trials, each a training of the classifier.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.tune_training.search --config job.json
"""

from pathlib import Path
from typing import Any

import torch

from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.models.blocks import prepare_blocks
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.classifier.build import build
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.classifier.tasks import ImageTask
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData, predict
from components.shared.training.search.trials import Trained, Watch, run_trials
from components.shared.training.session.compute import prepare_computation, resolved
from components.shared.training.session.fit import fit
from components.shared.training.session.rank import run_rank
from components.tune_training.config import TuneTrainingConfig


def search(
    config: TuneTrainingConfig,
    dataset: Path,
    splits: Path,
    backbone: Path,
    work: Path,
    world: World,
    checkpoints: CheckpointWriter,
) -> None:
    """Run the trials of one rank; the main rank leaves them in `work`."""
    base = resolved(config.base(), world.device)
    prepare_computation(base)
    data, assignment = Dataset.open(dataset), read_splits(splits)
    train, select = (SplitData.of(data, assignment, split) for split in ("TRAIN", "VAL_SELECT"))

    def trained(config: ClassifierConfig, name: str, watch: Watch) -> Trained:
        torch.manual_seed(config.seed)
        classifier = build(config, data, backbone).to(world.device)
        prepare_blocks(classifier.backbone, config)
        task = _WatchedTask(watch, config, classifier, train, select, world)
        if world.is_main:
            checkpoints.fetch(name)
        world.all_gather_int(0)  # no rank looks for the checkpoint before it is here

        result = fit(task, config, world, checkpoints=checkpoints.within(name))
        logits = predict(classifier.eval(), select, world, precision=config.precision)
        return Trained(result.best_epoch, result.best_value, logits)

    run_trials(config, base, trained, world, checkpoints, work)


class _WatchedTask(ImageTask):
    """The training of the classifier, which is told to end by `watch`."""

    def __init__(self, watch: Watch, *given: Any) -> None:
        super().__init__(*given)
        self.after_epoch = watch


if __name__ == "__main__":
    run_rank(search, TuneTrainingConfig, __doc__)
