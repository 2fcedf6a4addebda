"""Speed of ten views in one batch against ten passes through Hugging Face's processor and model.

The peer crops tiles from the stored image with Pillow, and gives each to the processor (224 x 224,
bicubic) and to the model, one after the other, in fp32. Ours cuts, resizes and normalises as
tensors, and makes one pass over all views, also in fp32. The backbone has DINOv2-small's shape; its
weights are random, which does not change the work.
"""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from components.shared.models.classifier import Classifier, new_head, normalise
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec, tile_boxes
from tests.bench.measure import Result, interleaved

_N_IMAGES, _SIZE = 2, 672
_VIEWS = ViewSpec(
    grid=3,
    overlap=0.25,
    flips=False,
    size=224,
    aggregation="lse",
    top_k=3,
    sharpness=1.0,
    positive_class="Roadwork",
)
_SPEC = ClassifierSpec(
    ("None", "Roadwork"), _SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "dinov2", _VIEWS
)


def run() -> list[Result]:
    """One result; the views' features must point the same way (cosine above 0.999)."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    classifier = Classifier(Dinov2Model(config), new_head(768, _SPEC), _SPEC).eval()
    coarse = np.random.default_rng(0).integers(0, 256, (_N_IMAGES, 42, 42, 3), dtype=np.uint8)
    images = np.stack(
        [np.asarray(Image.fromarray(image).resize((_SIZE, _SIZE))) for image in coarse]
    )
    with torch.inference_mode():
        cosine = (
            F.cosine_similarity(_ours(images, classifier), _peer(images, classifier), dim=-1)
            .min()
            .item()
        )
        assert cosine > 0.999, cosine
        seconds = interleaved(
            lambda: _ours(images, classifier), lambda: _peer(images, classifier), rounds=5
        )
    name = f"{_N_IMAGES} images of {_SIZE} x {_SIZE} in {_VIEWS.count} views, fp32"
    peer = "Pillow's crops, transformers' processor and model, one view at a time"
    return [Result(name, peer, *seconds, goal=1.0, note=f"least cosine {cosine:.5f}")]


def _ours(images: npt.NDArray[np.uint8], classifier: Classifier) -> torch.Tensor:
    features = classifier.features(normalise(torch.from_numpy(images), _SPEC))
    classifier.head(features)
    return features


def _peer(images: npt.NDArray[np.uint8], classifier: Classifier) -> torch.Tensor:
    processor = BitImageProcessor(
        size={"height": 224, "width": 224},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=False,
        image_mean=list(_SPEC.image_mean),
        image_std=list(_SPEC.image_std),
    )
    boxes = [(0, 0, _SIZE), *tile_boxes(_SIZE, _VIEWS)]
    found = []
    for image in images:
        photo = Image.fromarray(image)
        for left, top, side in boxes:
            crop = photo.crop((left, top, left + side, top + side))
            tokens = classifier.backbone(**processor([crop], return_tensors="pt")).last_hidden_state
            found.append(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1))
    features = torch.cat(found).unflatten(0, (len(images), len(boxes)))
    classifier.head(features)
    return features
