"""How does a consumer that rounds at 0.5 get the policy's decision? The threshold goes into the classifier's bias.

With the policy "positive iff margin > t" and a linear head, subtracting t from the positive class's bias makes the
model's own margin positive exactly then, hence P(positive) > 0.5 and `numpy.round(P) == 1` exactly then. A margin of
exactly t (which fitting avoids by placing t between attainable scores) gives 0.5, which numpy rounds to 0, "none".
"""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from components.shared.artifacts import write_json
from components.shared.evaluation.policy import Policy
from components.shared.models.classifier import Classifier, ClassifierSpec

# Families whose stock classification class feeds [CLS; mean patch token] to one linear layer, as ours does.
_STOCK_TYPES = ("dinov2", "dinov2_with_registers")
_BICUBIC = 3


def fold_threshold(head: nn.Linear, positive: int, threshold_margin: float, temperature: float = 1.0) -> None:
    """In place: margins become (margin - threshold_margin) / temperature, so that the threshold lies at 0."""
    with torch.no_grad():
        head.weight.div_(temperature)
        head.bias.div_(temperature)
        head.bias[positive] -= threshold_margin / temperature


def write_model(checkpoint: Path, policy: Policy, directory: Path) -> str | None:
    """Write the folded model; returns None where transformers' stock pipeline loads it, else the reason why not."""
    classifier = Classifier.load(checkpoint)
    positive = policy.class_names.index(policy.positive_class)
    fold_threshold(classifier.head.linear, positive, policy.threshold_margin)
    directory.mkdir()
    if classifier.spec.backbone_type in _STOCK_TYPES and len(policy.class_names) == 2:
        _save_stock(classifier, checkpoint, directory)
        _save_processor(classifier.spec, directory)
        return None
    classifier.save(directory)
    return (
        f"transformers has no classification class with this head for {classifier.spec.backbone_type!r} "
        f"and {len(policy.class_names)} classes; use components.shared.predict"
    )


def _save_stock(classifier: Classifier, checkpoint: Path, directory: Path) -> None:
    config = AutoConfig.from_pretrained(checkpoint / "backbone")
    names = classifier.spec.class_names
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    model = AutoModelForImageClassification.from_config(config)
    model.base_model.load_state_dict(classifier.backbone.state_dict())
    model.classifier.load_state_dict(classifier.head.linear.state_dict())
    model.save_pretrained(directory)


def _save_processor(spec: ClassifierSpec, directory: Path) -> None:
    """ViT's processor, not DINOv2's own: it squeezes instead of cropping, and old stock pipelines can load it."""
    size = {"height": spec.image_size, "width": spec.image_size}
    write_json(
        directory / "preprocessor_config.json",
        {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": size,
            "resample": _BICUBIC,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(spec.image_mean),
            "image_std": list(spec.image_std),
        },
    )
