"""Calibrator and threshold fused into the head, and the model files that consumers load.

With the binary policy "positive iff margin > t" and a linear head, subtracting t from the positive
class's bias makes the model's own margin positive exactly then. So P(positive) > 0.5 and
`numpy.round(P) == 1` exactly then. A margin of exactly t gives 0.5, which numpy rounds to 0,
the other class, which is the policy's decision too. An affine calibrator scales the weights before
(components/shared/policies/logit_affine.py). Of a multiclass policy the calibrator alone goes in:
the largest logit is its decision, and no weights can defer.

In float32 the changed weights are rounded once, and the softmax rounds P to 0.5 for margins within
1.2e-7 of zero. Only an image within about 1e-6 of the threshold could be decided differently:
another batch size or processor moves a margin by more (1e-5), and fitting puts t midway between
neighbouring scores. The step checks the stored files on images of the dataset (check.py).
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageClassification

from components.shared.contracts.artifacts import write_json
from components.shared.models.classifier import Classifier
from components.shared.policies.logit_affine import LogitAffine, logit_affine_of
from components.shared.policies.policy import Policy
from components.shared.serving.bundle import stock_order
from components.shared.vision.classifier_spec import ClassifierSpec

# Families whose stock classification class feeds [CLS; mean patch token] to one linear layer, as
# `Classifier` does.
_STOCK_TYPES = ("dinov2", "dinov2_with_registers")
_BICUBIC = 3


def fuse_into_head(head: nn.Linear, affine: LogitAffine) -> None:
    """Change the weights in place: logits become scale * logits + offset."""
    scale, offset = torch.from_numpy(affine.scale), torch.from_numpy(affine.offset)
    weight, bias = head.weight.detach().double(), head.bias.detach().double()
    with torch.no_grad():
        head.weight.copy_(scale[:, None] * weight)
        head.bias.copy_(scale * bias + offset)


def stock_incompatibility(spec: ClassifierSpec, affine: LogitAffine) -> str:
    """Return why transformers' stock pipeline cannot run classifier and policy; empty if it can."""
    if spec.backbone_type not in _STOCK_TYPES:
        return (
            f"transformers has no class for {spec.backbone_type!r} with a head on [CLS; mean patch"
            " token]"
        )
    if spec.views is not None:
        return (
            f"the model evaluates {spec.views.count} views of an image, the stock pipeline"
            " evaluates one"
        )
    return "" if affine.decides else affine.reason


def distilled_classifier(classifier: Classifier) -> Classifier:
    """Return the distilled head as a classifier of the full image at the size of a view."""
    spec, head = classifier.spec, classifier.distilled_head
    if spec.views is None or head is None:
        raise ValueError("the classifier has no distilled head")
    full_image = dataclasses.replace(spec, image_size=spec.views.size, views=None)
    return Classifier(classifier.backbone, head, full_image).eval()


def write_model(classifier: Classifier, policy: Policy, directory: Path) -> None:
    """Write the fused model: as stock model and processor, or as files of `Classifier`.

    `classifier` itself is fused too. A multi-view model is not: the aggregation of its views does
    not commute with a scale or an offset.
    """
    affine = logit_affine_of(policy)
    if classifier.spec.views is None:
        fuse_into_head(classifier.head.linear, affine)

    directory.mkdir()
    if stock_incompatibility(classifier.spec, affine):
        classifier.save(directory)
        return

    _stock_model(classifier, stock_order(policy.outcomes)).save_pretrained(directory)
    write_json(directory / "preprocessor_config.json", _processor(classifier.spec))


def _stock_model(classifier: Classifier, order: list[int]) -> Any:
    """Return transformers' model with these weights, whose label number i is class `order[i]`."""
    labels = [classifier.spec.class_names[index] for index in order]
    config = copy.deepcopy(classifier.backbone.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    # Unset means softmax everywhere; the pipeline of transformers 4.45 applies a sigmoid for
    # "single_label_classification".
    config.problem_type = None
    model = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    model.base_model.load_state_dict(classifier.backbone.state_dict())
    head = classifier.head.linear
    model.classifier.load_state_dict({"weight": head.weight[order], "bias": head.bias[order]})

    return model


def _processor(spec: ClassifierSpec) -> dict[str, object]:
    """Return the configuration of ViT's image processor.

    DINOv2's own crops, ViT's resizes to a square, and old stock pipelines can load it.
    """
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": spec.image_size, "width": spec.image_size},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.image_mean),
        "image_std": list(spec.image_std),
    }
