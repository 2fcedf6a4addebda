"""Speed of a frozen backbone's features from JPEG files against Hugging Face's processor and model.

The peer: AutoImageProcessor (224 x 224, bicubic, the model's own statistics) on batches of 32
opened files, then the model in fp32. Ours: decode, resize, normalise, in bf16 where the processor
has instructions for it. The backbone has DINOv2-small's shape; its weights are random, which does
not change the work.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from components.shared.data.decode import decode_resized
from components.shared.data.parallel import ordered_map
from components.shared.models.backbone import patch_and_cls
from components.shared.models.classifier import normalise
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.bench.measure import Result, interleaved
from tests.bench.photographs import photographs
from tests.bench.versions import has_bf16_instructions

_N_FILES, _BATCH, _SIZE = 64, 32, 224
_SPEC = ClassifierSpec(
    ("None", "Roadwork"), _SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "dinov2"
)


def run() -> list[Result]:
    """One result; the features must point the same way (cosine above 0.999)."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    model, bf16 = Dinov2Model(config).eval(), has_bf16_instructions()
    with photographs(_N_FILES) as files, torch.inference_mode():
        cosine = F.cosine_similarity(_ours(files, model, bf16), _peer(files, model)).min().item()
        assert cosine > 0.999, cosine
        seconds = interleaved(
            lambda: _ours(files, model, bf16), lambda: _peer(files, model), rounds=3
        )
    name = f"frozen features, {_N_FILES} JPEG of 1280 x 720, {'bf16' if bf16 else 'fp32'}"
    peer = "transformers' processor and model, fp32"
    return [
        Result(name, peer, *seconds, goal=2.5 if bf16 else 1.3, note=f"least cosine {cosine:.5f}")
    ]


def _ours(files: list[Path], model: Dinov2Model, bf16: bool) -> torch.Tensor:
    images = ordered_map(lambda f: decode_resized(f.read_bytes(), size=_SIZE), files)
    pixels = torch.from_numpy(np.stack(list(images)))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return torch.cat(
            [
                patch_and_cls(model, normalise(batch, _SPEC)).float()
                for batch in pixels.split(_BATCH)
            ]
        )


def _peer(files: list[Path], model: Dinov2Model) -> torch.Tensor:
    processor = BitImageProcessor(
        size={"height": _SIZE, "width": _SIZE},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=False,
        image_mean=list(_SPEC.image_mean),
        image_std=list(_SPEC.image_std),
    )
    features = []
    for start in range(0, len(files), _BATCH):
        inputs = processor(
            [Image.open(file) for file in files[start : start + _BATCH]], return_tensors="pt"
        )
        tokens = model(**inputs).last_hidden_state
        features.append(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1))
    return torch.cat(features)
