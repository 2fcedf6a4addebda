"""What maps an image to class logits, and how is it stored?

A backbone and one linear head on [CLS; mean patch token], of the whole image or of several views of
it. The directory form is a Hugging Face backbone folder, the head in safetensors and
`classifier.json`; nothing is pickled.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from components.shared.contracts.artifacts import write_json
from components.shared.models.aggregation import Attention, aggregate, neutral_margin, shares
from components.shared.models.backbone import load_backbone, patch_and_cls
from components.shared.vision.tiles import cut
from components.shared.vision.view_spec import ViewSpec

DISTILLED_HEAD = "student.safetensors"


@dataclass(frozen=True)
class ClassifierSpec:
    """Everything beside the weights. image_size in pixels; mean and std per RGB channel of values
    in [0, 1].

    views: how an image of image_size is cut; None where it is seen as a whole.
    """

    class_names: tuple[str, ...]
    image_size: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    backbone_type: str
    views: ViewSpec | None = None

    def to_json(self) -> dict[str, Any]:
        """The document of classifier.json; without views it says nothing of them."""
        document = dataclasses.asdict(self)
        return (
            document
            if self.views
            else {name: value for name, value in document.items() if name != "views"}
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ClassifierSpec":
        """What `to_json` gave."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
        }
        views = values.pop("views", None)
        return cls(**values, views=None if views is None else ViewSpec(**views))


class Head(nn.Module):
    """Linear map (B, 2h) -> (B, K). `keep` (B, 2h) is a dropout mask already scaled by 1 / (1 -
    p).
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of features; the mask comes from outside so that it depends on the sample, not on
        the process.
        """
        logits: torch.Tensor = self.linear(features if keep is None else features * keep)
        return logits

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """(B, 2h) features of the image, for what else wants to know them."""
        return features


class BagHead(Head):
    """The same linear map on every view, and one margin from all of them: (B, V, 2h) -> (B, 2),
    minus and plus half.

    The views are instances of a bag of which only the bag has a label.
    """

    def __init__(self, n_features: int, views: ViewSpec, positive: int) -> None:
        super().__init__(n_features, 2)
        self.views, self.positive = views, positive
        self.attention = Attention(n_features) if views.aggregation == "attention" else None
        with torch.no_grad():
            self.linear.bias[positive] += neutral_margin(views)

    def forward(self, features: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of the images; all views of an image share its row of the mask."""
        kept = features if keep is None else features * keep[:, None]
        margin = aggregate(self.margins(kept), self.views, self._attention(kept))
        sign = torch.tensor([-0.5, 0.5] if self.positive else [0.5, -0.5], device=margin.device)
        return margin[:, None] * sign

    def margins(self, features: torch.Tensor) -> torch.Tensor:
        """(B, V) float32 margins of the views."""
        logits = self.linear(features).float()
        return torch.Tensor(logits[..., self.positive] - logits[..., 1 - self.positive])

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """(B, 2h): the views' features, each by its share in the image's margin; a constant to the
        gradient.
        """
        with torch.no_grad():
            weights = shares(self.margins(features), self.views, self._attention(features))
        return (weights[..., None] * features).sum(dim=1)

    def _attention(self, features: torch.Tensor) -> torch.Tensor | None:
        return None if self.attention is None else self.attention(features)


def new_head(n_features: int, spec: ClassifierSpec) -> Head:
    """A fresh head of the form that `spec` asks for."""
    if spec.views is None:
        return Head(n_features, len(spec.class_names))
    return BagHead(n_features, spec.views, spec.class_names.index(spec.views.positive_class))


class Classifier(nn.Module):
    """Backbone and head; `student` is a second head of a classifier of several views, on the whole
    image's features.

    forward: (B, 3, S, S) float32 normalised pixels, or (B, V, 3, s, s) views -> (B, K) logits.
    """

    def __init__(self, backbone: PreTrainedModel, head: Head, spec: ClassifierSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.spec = spec
        self.distilled_head: Head | None = None

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 2h) or, of views, (B, V, 2h): the head's input. All views of all images go through in
        one batch.
        """
        flat = patch_and_cls(self.backbone, pixel_values.flatten(0, -4))
        return flat.view(*pixel_values.shape[:-3], flat.shape[-1])

    def forward(self, pixel_values: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, K); `keep` as in Head."""
        logits: torch.Tensor = self.head(self.features(pixel_values), keep)
        return logits

    def save(self, directory: Path) -> None:
        """Write backbone/, head.safetensors and classifier.json."""
        self.backbone.save_pretrained(directory / "backbone")
        state = self.head.state_dict()
        tensors = {
            name.removeprefix("linear."): tensor.cpu().contiguous()
            for name, tensor in state.items()
        }
        save_file(tensors, directory / "head.safetensors")
        if self.distilled_head is not None:
            state = self.distilled_head.linear.state_dict()
            save_file(
                {name: t.cpu().contiguous() for name, t in state.items()},
                directory / DISTILLED_HEAD,
            )
        write_json(directory / "classifier.json", self.spec.to_json())

    @classmethod
    def load(cls, directory: Path) -> "Classifier":
        """Read what `save` wrote; the model is in eval mode on the CPU."""
        spec = ClassifierSpec.from_json(
            json.loads((directory / "classifier.json").read_text(encoding="utf-8"))
        )
        tensors = load_file(directory / "head.safetensors")
        head = new_head(tensors["weight"].shape[1], spec)
        head.load_state_dict(
            {name if "." in name else f"linear.{name}": value for name, value in tensors.items()}
        )
        classifier = cls(load_backbone(str(directory / "backbone")), head, spec)
        if (directory / DISTILLED_HEAD).is_file():
            classifier.distilled_head = Head(head.linear.in_features, 2)
            classifier.distilled_head.linear.load_state_dict(load_file(directory / DISTILLED_HEAD))
        return classifier.eval()


def normalise(
    images: torch.Tensor, spec: ClassifierSpec, *, first: int = 0, last: int | None = None
) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> float32, cut, scaled and standardised; the last step before the model,
    as `standardise`.
    """
    return standardise(images.permute(0, 3, 1, 2).float().div_(255), spec, first=first, last=last)


def standardise(
    images: torch.Tensor, spec: ClassifierSpec, *, first: int = 0, last: int | None = None
) -> torch.Tensor:
    """float32 (B, 3, S, S) in [0, 1] -> the same minus mean, over standard deviation; cut into (B,
    V, 3, s, s) where the classifier looks at several views, of which `first` to `last` are
    wanted."""
    parts = images if spec.views is None else cut(images, spec.views, first=first, last=last)
    mean = torch.tensor(spec.image_mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(spec.image_std, device=images.device).view(3, 1, 1)
    return (parts - mean) / std
