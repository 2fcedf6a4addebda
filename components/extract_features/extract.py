r"""The torchrun entry of extract_features: one rank's shards of the features of both splits.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.extract_features.extract --config job.json
"""

from pathlib import Path

from components.extract_features.config import ExtractFeaturesConfig
from components.shared.data.dataset import Dataset
from components.shared.data.features import FeatureRecipe
from components.shared.data.splits import read_splits
from components.shared.models.backbone import load_backbone
from components.shared.models.blocks import prepare_blocks
from components.shared.models.classifier import Classifier, new_head, new_spec
from components.shared.training.checkpoint.parts import Parts
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.shared.training.session.features import (
    computed_features,
    export_features,
    labels_of,
)
from components.shared.training.session.rank import run_rank
from components.shared.vision.view_spec import ViewSpec


def extract(
    config: ExtractFeaturesConfig,
    dataset: Path,
    splits: Path,
    backbone: Path,
    work: Path,
    world: World,
    parts: Parts,
) -> None:
    """Compute one rank's shards; the main rank leaves `TRAIN/` and `VAL_SELECT/` in `work`."""
    data, assignment = Dataset.open(dataset), read_splits(splits)
    train, select = (SplitData.of(data, assignment, split) for split in ("TRAIN", "VAL_SELECT"))
    classifier = _classifier(config, data, backbone).to(world.device)
    prepare_blocks(classifier.backbone, config)

    features = computed_features(classifier, train, select, FeatureRecipe.of(config), world, parts)

    if world.is_main:
        for split, images, found in zip(
            ("TRAIN", "VAL_SELECT"), (train, select), features, strict=True
        ):
            export_features(work / split, split, found, parts, labels_of(images))


def _classifier(config: ExtractFeaturesConfig, data: Dataset, folder: Path) -> Classifier:
    """Return the backbone below a head that is not used.

    Raises:
        ConfigError: Images have no size that the backbone can see (`new_spec`).
        DataError: The backbone is refused (`load_backbone`).
    """
    backbone = load_backbone(str(folder))
    spec = new_spec(config, data, folder, backbone, ViewSpec.of(config))
    head = new_head(2 * backbone.config.hidden_size, spec)

    return Classifier(backbone, head, spec).eval()


if __name__ == "__main__":
    run_rank(extract, ExtractFeaturesConfig, __doc__)
