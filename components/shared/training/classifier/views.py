"""How a classifier sees an image: the views, and the aggregation of their margins."""

from collections.abc import Sequence

from components.shared.training.classifier.config import ClassifierConfig
from components.shared.vision.view_spec import ViewSpec


def views_of(config: ClassifierConfig, class_names: Sequence[str]) -> ViewSpec | None:
    """Return how images are cut into views, and how the views' margins are aggregated."""
    return ViewSpec.of(
        config,
        aggregation=config.aggregation,
        top_k=config.aggregation_top_k,
        sharpness=config.aggregation_sharpness,
        positive_class=config.outcomes(class_names).positive_class,
    )
