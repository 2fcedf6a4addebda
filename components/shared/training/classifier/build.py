"""The classifier before training: a backbone, adapted in the configured mode, below a new head."""

from pathlib import Path

from components.shared.data.dataset import Dataset
from components.shared.models import adapters
from components.shared.models.backbone import load_backbone
from components.shared.models.classifier import Classifier, new_head, new_spec
from components.shared.models.positions import bake_positions
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.training.classifier.views import views_of


def build(config: ClassifierConfig, data: Dataset, folder: Path) -> Classifier:
    """Return the classifier before training, on the CPU.

    Args:
        config: Options of the training.
        data: The dataset, for class names and image size.
        folder: Hugging Face folder of the backbone, which is adapted in the configured mode.

    Raises:
        ConfigError: Images have no size that the backbone can see (`new_spec`).
        DataError: The backbone is refused (`load_backbone`).
    """
    backbone = load_backbone(str(folder))
    spec = new_spec(config, data, folder, backbone, views_of(config, data.class_names))
    n_features = 2 * backbone.config.hidden_size
    if config.mode == "full":
        bake_positions(backbone, spec.image_size if spec.views is None else spec.views.size)
    options = config.parsed_adapter_options()
    backbone = adapters.prepare(
        backbone, config.mode, rank=config.adapter_rank, alpha=config.adapter_alpha, options=options
    )

    return Classifier(backbone, new_head(n_features, spec), spec)
