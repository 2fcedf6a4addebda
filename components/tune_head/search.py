r"""The torchrun entry of tune_head: one rank of the trials, each a head on stored features.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.tune_head.search --config job.json
"""

from pathlib import Path

import torch
from torch import nn

from components.shared.data.features import FeatureLabels, open_features, read_labels
from components.shared.models.classifier import Classifier, new_head
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.classifier.tasks import FrozenTask
from components.shared.training.classifier.views import views_of
from components.shared.training.loop.distributed import World
from components.shared.training.search.trials import Trained, Watch, run_trials
from components.shared.training.session.compute import prepare_computation, resolved
from components.shared.training.session.features import FeatureSets, in_blocks
from components.shared.training.session.fit import FitResult, fit
from components.shared.training.session.rank import run_rank
from components.shared.vision.classifier_spec import ClassifierSpec
from components.tune_head.config import TuneHeadConfig

_NO_PIXELS = (1, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), "none")  # a head alone sees none


def search(
    config: TuneHeadConfig,
    train_features: Path,
    val_select_features: Path,
    work: Path,
    world: World,
    checkpoints: CheckpointWriter,
) -> None:
    """Run the trials of one rank; the main rank leaves them in `work`."""
    base = resolved(config.base(), world.device)
    prepare_computation(base)
    train = HeadTrainer(train_features, val_select_features, world)
    run_trials(config, base, train, world, checkpoints, work)


class HeadTrainer:
    """Trains heads on the features of two artifacts, which the step has verified."""

    def __init__(self, train_features: Path, val_select_features: Path, world: World) -> None:
        """Map the features."""
        self.world = world
        self.features = FeatureSets(
            open_features(train_features, "TRAIN")[0],
            open_features(val_select_features, "VAL_SELECT")[0],
        )
        self.labels: tuple[FeatureLabels, FeatureLabels] = (
            read_labels(train_features, self.features.train),
            read_labels(val_select_features, self.features.select),
        )

    def __call__(self, config: ClassifierConfig, name: str, watch: Watch) -> Trained:
        """Train a head; it takes less time than a checkpoint, or a look at the others' median."""
        del name, watch
        classifier, result = self.fitted(config)
        logits = in_blocks(classifier.head, self.features.select, self.world)
        return Trained(result.best_epoch, result.best_value, logits.float().cpu().numpy())

    def fitted(self, config: ClassifierConfig) -> tuple[Classifier, FitResult]:
        """Return a head below no backbone that was trained with these options, and how it went."""
        torch.manual_seed(config.seed)
        classifier = self._classifier(config).to(self.world.device)
        task = FrozenTask(config, classifier, *self.labels, self.world, self.features)
        result = fit(task, config, self.world, quiet=True)
        return classifier.eval(), result

    def _classifier(self, config: ClassifierConfig) -> Classifier:
        """Return a new head, on a backbone that nobody calls."""
        names = self.labels[0].class_names
        spec = ClassifierSpec(names, *_NO_PIXELS, views_of(config, names))
        return Classifier(nn.Identity(), new_head(self.features.train.width, spec), spec)


if __name__ == "__main__":
    run_rank(search, TuneHeadConfig, __doc__)
