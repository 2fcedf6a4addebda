"""What maps an image to class logits, and how is it stored?

A backbone and one linear head on [CLS; mean patch token]. The directory form is a Hugging Face backbone folder, the
head in safetensors and `classifier.json`; nothing is pickled.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from components.shared.artifacts import write_json
from components.shared.models.backbone import load_backbone, patch_and_cls


@dataclass(frozen=True)
class ClassifierSpec:
    """Everything beside the weights. image_size in pixels; mean and std per RGB channel of values in [0, 1]."""

    class_names: tuple[str, ...]
    image_size: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    backbone_type: str


class Head(nn.Module):
    """Linear map (B, 2h) -> (B, K). `keep` (B, 2h) is a dropout mask already scaled by 1 / (1 - p)."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of features; the mask comes from outside so that it depends on the sample, not on the process."""
        logits: torch.Tensor = self.linear(features if keep is None else features * keep)
        return logits


class Classifier(nn.Module):
    """Backbone and head. forward: (B, 3, S, S) float32 normalised pixels -> (B, K) logits."""

    def __init__(self, backbone: PreTrainedModel, head: Head, spec: ClassifierSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.spec = spec

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 2h): the head's input."""
        return patch_and_cls(self.backbone, pixel_values)

    def forward(self, pixel_values: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, K); `keep` as in Head."""
        logits: torch.Tensor = self.head(self.features(pixel_values), keep)
        return logits

    def save(self, directory: Path) -> None:
        """Write backbone/, head.safetensors and classifier.json."""
        self.backbone.save_pretrained(directory / "backbone")
        linear = self.head.linear
        tensors = {"weight": linear.weight.detach().cpu().contiguous(), "bias": linear.bias.detach().cpu().contiguous()}
        save_file(tensors, directory / "head.safetensors")
        write_json(directory / "classifier.json", dataclasses.asdict(self.spec))

    @classmethod
    def load(cls, directory: Path) -> "Classifier":
        """Read what `save` wrote; the model is in eval mode on the CPU."""
        document = json.loads((directory / "classifier.json").read_text(encoding="utf-8"))
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        spec = ClassifierSpec(**values)
        tensors = load_file(directory / "head.safetensors")
        n_classes, n_features = tensors["weight"].shape
        head = Head(n_features, n_classes)
        head.linear.load_state_dict(tensors)
        return cls(load_backbone(str(directory / "backbone")), head, spec).eval()


def normalise(images: torch.Tensor, spec: ClassifierSpec) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S), scaled to [0, 1] and standardised; the last step before the model."""
    return standardise(images.permute(0, 3, 1, 2).float().div_(255), spec)


def standardise(images: torch.Tensor, spec: ClassifierSpec) -> torch.Tensor:
    """float32 (B, 3, S, S) in [0, 1] -> the same, minus mean, over standard deviation."""
    mean = torch.tensor(spec.image_mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.image_std, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std
