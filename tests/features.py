"""Features of a split for tests of tasks, computed by the library in this process."""

import tempfile
from pathlib import Path

from components.shared.contracts.options import LaunchConfig, RecipeConfig
from components.shared.data.features import FeatureRecipe
from components.shared.models.classifier import Classifier
from components.shared.training.checkpoint.parts import Parts
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.shared.training.session.features import FeatureSets, computed_features


def feature_sets(
    config: RecipeConfig, classifier: Classifier, train: SplitData, select: SplitData, world: World
) -> FeatureSets:
    """Return the features under a phase's options; their files are gone, and stay mapped."""
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Path(folder), LaunchConfig(), step="test")
        recipe = FeatureRecipe.of(config)
        return computed_features(classifier.eval(), train, select, recipe, world, parts)
