"""The classifier before training: a backbone, adapted in the configured mode, below a new head."""

from pathlib import Path

from components.shared.contracts.errors import ConfigError
from components.shared.data.dataset import Dataset
from components.shared.models import adapters
from components.shared.models.backbone import image_statistics, load_backbone
from components.shared.models.classifier import Classifier, check_input_size, new_head
from components.shared.models.positions import bake_positions
from components.shared.training.classifier.config import ClassifierConfig
from components.shared.vision.classifier_spec import ClassifierSpec


def build(config: ClassifierConfig, data: Dataset, folder: Path) -> Classifier:
    """Return the classifier before training, on the CPU.

    Args:
        config: Options of the training.
        data: The dataset, for class names and image size.
        folder: Hugging Face folder of the backbone, which is adapted in the configured mode.

    Raises:
        ConfigError: An image, or a view of it, has no patch of the backbone, or far too many.
        DataError: The backbone is refused (`load_backbone`).
    """
    backbone = load_backbone(str(folder))
    mean, std = image_statistics(str(folder))
    spec = ClassifierSpec(
        data.class_names,
        data.image_size,
        mean,
        std,
        backbone.config.model_type,
        config.views(data.class_names),
    )
    check_input_size(spec, backbone, "image_size or tile_size", error=ConfigError)
    n_features = 2 * backbone.config.hidden_size
    if config.mode == "full":
        bake_positions(backbone, spec.image_size if spec.views is None else spec.views.size)
    options = config.parsed_adapter_options()
    backbone = adapters.prepare(
        backbone, config.mode, rank=config.adapter_rank, alpha=config.adapter_alpha, options=options
    )

    return Classifier(backbone, new_head(n_features, spec), spec)
