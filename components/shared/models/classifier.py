"""The classifier of an image: a backbone, one linear head, and their directory form.

The head sees [CLS; mean patch token] of the full image, or of each of several views. The directory
form is a Hugging Face backbone folder, the head in safetensors and `classifier.json`; nothing is
pickled.
"""

import functools
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from components.shared.contracts.artifacts import write_json
from components.shared.contracts.errors import ConfigError, PermanentError
from components.shared.contracts.options import InputConfig
from components.shared.data.dataset import Dataset
from components.shared.models.aggregation import (
    Attention,
    aggregate,
    neutral_margin,
    view_weights,
)
from components.shared.models.backbone import (
    image_statistics,
    load_backbone,
    patch_and_cls,
    tokens_of,
)
from components.shared.models.linear import HeadLinear
from components.shared.models.loading import load_weights
from components.shared.vision.classifier_spec import CLASSIFIER, ClassifierSpec, read_spec
from components.shared.vision.tiles import cut_views
from components.shared.vision.view_spec import ViewSpec

HEAD = "head.safetensors"
# The file's name is that of schema 1.
DISTILLED_HEAD = "student.safetensors"
# The largest image that ingest stores, in patches of 8 x 8: attention takes the square of them.
_MOST_PATCHES = 65_536


def check_input_size(
    spec: ClassifierSpec, backbone: PreTrainedModel, where: str, *, error: type[PermanentError]
) -> None:
    """Raise `error` where an image, or a view of it, has no patch, or far too many of them."""
    side = spec.image_size if spec.views is None else spec.views.size
    patch = int(backbone.config.patch_size)
    n_patches = (side // patch) ** 2
    if not 1 <= n_patches <= _MOST_PATCHES:
        raise error(
            f"{where}: an image of {side} x {side} pixels has {n_patches:,} patches of {patch} x"
            f" {patch}, must be 1 to {_MOST_PATCHES:,}"
        )


def new_spec(
    config: InputConfig,
    data: Dataset,
    folder: Path,
    backbone: PreTrainedModel,
    views: ViewSpec | None,
) -> ClassifierSpec:
    """Return the specification of a new classifier.

    Args:
        config: Options of the phase, for the size of the images that the classifier sees.
        data: The dataset, for the names of the classes and the size of the stored images.
        folder: Hugging Face folder of the backbone, for the statistics of images.
        backbone: The backbone.
        views: How images are cut; None for the whole image alone.

    Raises:
        ConfigError: An image, or a view of it, is larger than stored, has no patch of the backbone,
            no whole number of them, or far too many.
    """
    mean, std = image_statistics(str(folder))
    size = config.input_size or data.image_size
    spec = ClassifierSpec(data.class_names, size, mean, std, backbone.config.model_type, views)

    problem = config.input_problem(data.image_size, backbone.config.patch_size)
    if problem:
        raise ConfigError(problem)
    check_input_size(spec, backbone, "image_size, input_size or tile_size", error=ConfigError)

    return spec


class Head(nn.Module):
    """A linear map from features (B, 2h) to logits (B, C)."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.linear = HeadLinear(n_features, n_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, features: torch.Tensor, dropout_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits (B, C).

        Args:
            features: (B, 2h).
            dropout_mask: (B, 2h), already scaled by 1 / (1 - p). An argument and not drawn here, so
                that it depends on the sample and not on the process.
        """
        logits: torch.Tensor = self.linear(
            features if dropout_mask is None else features * dropout_mask
        )
        return logits

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Return one feature vector (B, 2h) per image, the input of the gate's heads."""
        return features


class _ViewsHead(Head):
    """The same linear map on every view of an image.

    Multiple-instance learning: views are the instances of a bag, and only the bag has a label.
    """

    def __init__(self, n_features: int, n_classes: int, views: ViewSpec) -> None:
        super().__init__(n_features, n_classes)
        self.views = views
        self.attention = Attention(n_features) if views.aggregation == "attention" else None

    def _attention(self, features: torch.Tensor) -> torch.Tensor | None:
        return None if self.attention is None else self.attention(features)


class BagHead(_ViewsHead):
    """One margin aggregated from all views.

    Maps features (B, V, 2h) to logits (B, 2), which are minus and plus half the margin.
    """

    def __init__(self, n_features: int, views: ViewSpec, positive: int) -> None:
        super().__init__(n_features, 2, views)
        self.positive = positive
        with torch.no_grad():
            self.linear.bias[positive] += neutral_margin(views)

    def forward(
        self, features: torch.Tensor, dropout_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits (B, 2); all views of an image share its row of `dropout_mask` (B, 2h)."""
        dropped = features if dropout_mask is None else features * dropout_mask[:, None]
        margin = aggregate(self.margins(dropped), self.views, self._attention(dropped))
        sign = torch.tensor([-0.5, 0.5] if self.positive else [0.5, -0.5], device=margin.device)
        return margin[:, None] * sign

    def margins(self, features: torch.Tensor) -> torch.Tensor:
        """Return the margins (B, V) float32 of the views."""
        logits = self.linear(features)
        return torch.Tensor(logits[..., self.positive] - logits[..., 1 - self.positive])

    def margins_of(self, features: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """Return the margins (B, V) of the views for class k (B,) of each image."""
        margins = self.margins(features)
        return torch.where((k == self.positive)[:, None], margins, -margins)

    def weights(self, features: torch.Tensor, k: torch.Tensor | None = None) -> torch.Tensor:
        """Return each view's weight (B, V) in its image's margin, whatever the class k."""
        del k
        return view_weights(self.margins(features), self.views, self._attention(features))

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean (B, 2h) of the views' features, weighted by `view_weights`.

        The weights are constants for the gradient.
        """
        with torch.no_grad():
            weights = self.weights(features)
        return (weights[..., None] * features).sum(dim=1)


class MulticlassBagHead(_ViewsHead):
    """One logit per class, each aggregated from all views.

    The margin of a class is its log-odds against the rest in a view; an image shows the class of
    which any view is surest. Maps features (B, V, 2h) to logits (B, C).
    """

    def forward(
        self, features: torch.Tensor, dropout_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits (B, C); all views of an image share its row of `dropout_mask` (B, 2h)."""
        dropped = features if dropout_mask is None else features * dropout_mask[:, None]
        return self._logits(self.margins(dropped), self._attention(dropped))

    def margins(self, features: torch.Tensor) -> torch.Tensor:
        """Return the margins (B, V, C) float32 of the views."""
        log_probabilities = self.linear(features).log_softmax(dim=-1)
        # log(1 - p) from the other classes' log p, without the cancellation where p is close to 1.
        own = torch.eye(log_probabilities.shape[-1], dtype=torch.bool, device=features.device)
        others = log_probabilities[..., None, :].masked_fill(own, -torch.inf)
        return torch.Tensor(log_probabilities - others.logsumexp(dim=-1))

    def margins_of(self, features: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """Return the margins (B, V) of the views for class k (B,) of each image."""
        # An index of `arange(B)` would fix B in an exported graph.
        margins = self.margins(features)
        return margins.gather(2, k[:, None, None].expand(-1, margins.shape[1], 1)).squeeze(2)

    def weights(self, features: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """Return each view's weight (B, V) in its image's margin of class k (B,)."""
        margins = self.margins_of(features, k)
        return view_weights(margins, self.views, self._attention(features))

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean (B, 2h) of the views' features, weighted for the most probable class.

        The weights are constants for the gradient.
        """
        with torch.no_grad():
            weights = self.weights(features, self(features).argmax(dim=1))
        return (weights[..., None] * features).sum(dim=1)

    def _logits(self, margins: torch.Tensor, attention: torch.Tensor | None) -> torch.Tensor:
        of_classes = margins.unbind(dim=-1)
        return torch.stack([aggregate(m, self.views, attention) for m in of_classes], dim=-1)


def new_head(n_features: int, spec: ClassifierSpec) -> Head:
    """Return a freshly initialised head of the form that `spec` describes."""
    if spec.views is None:
        return Head(n_features, len(spec.class_names))
    if spec.views.positive_class is None:
        return MulticlassBagHead(n_features, len(spec.class_names), spec.views)
    return BagHead(n_features, spec.views, spec.class_names.index(spec.views.positive_class))


class Classifier(nn.Module):
    """A backbone and a head, with which pixels become logits.

    `distilled_head` is an optional second head of a multi-view classifier, on the features of the
    full image alone.
    """

    def __init__(self, backbone: PreTrainedModel, head: Head, spec: ClassifierSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.spec = spec
        self.distilled_head: Head | None = None

    def train(self, mode: bool = True) -> "Classifier":
        """Set the training mode of all but the backbone, which always computes the same.

        DINOv3 draws a random scale of its position embeddings in training mode, by the pass: the
        draws would depend on the number of processes and the size of micro-batches.
        """
        super().train(mode)
        self.backbone.eval()
        return self

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the head's input: (B, 2h), or (B, V, 2h) for views.

        They are float32, at any precision of the backbone. All views of all images pass through the
        backbone in one batch. `pixel_values` as in `forward`.
        """
        flat = patch_and_cls(self.backbone, pixel_values.flatten(0, -4))
        return flat.view(*pixel_values.shape[:-3], flat.shape[-1])

    def tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the tokens (B, T, h) float32 that `features` pools, or (B, V, T, h) for views."""
        flat = tokens_of(self.backbone, pixel_values.flatten(0, -4)).float()
        return flat.view(*pixel_values.shape[:-3], *flat.shape[1:])

    def forward(
        self, pixel_values: torch.Tensor, dropout_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits (B, C).

        Args:
            pixel_values: (B, 3, S, S) float32 normalised pixels, or (B, V, 3, s, s) of views.
            dropout_mask: (B, 2h), as in `Head.forward`.
        """
        logits: torch.Tensor = self.head(self.features(pixel_values), dropout_mask)
        return logits

    def save(self, directory: Path) -> None:
        """Write backbone/, head.safetensors, classifier.json and the distilled head, if any."""
        self.backbone.save_pretrained(directory / "backbone")
        state = self.head.state_dict()
        # The linear map's tensors are called "weight" and "bias" in the file.
        save_file(
            {
                name.removeprefix("linear."): tensor.cpu().contiguous()
                for name, tensor in state.items()
            },
            directory / HEAD,
        )

        if self.distilled_head is not None:
            state = self.distilled_head.linear.state_dict()
            save_file(
                {name: tensor.cpu().contiguous() for name, tensor in state.items()},
                directory / DISTILLED_HEAD,
            )

        write_json(directory / CLASSIFIER, self.spec.to_json())

    @classmethod
    def load(cls, directory: Path, *, where: str = "") -> "Classifier":
        """Read what `save` wrote; the model is in eval mode on the CPU.

        Args:
            directory: The directory.
            where: What messages call it; empty: its path.

        Raises:
            ArtifactError: A file is missing or damaged, or has other weights than the model of
                classifier.json.
            DataError: The same, of the backbone.
        """
        where, spec = where or str(directory), read_spec(directory)
        backbone = load_backbone(directory / "backbone", where=f"{where}/backbone")
        head = new_head(2 * backbone.config.hidden_size, spec)
        # The linear map's tensors are called "weight" and "bias" in the file.
        names = {name: name.removeprefix("linear.") for name in head.state_dict()}
        load_weights(head, directory / HEAD, where, names=names)

        classifier = cls(backbone, head, spec)
        if (directory / DISTILLED_HEAD).exists():
            classifier.distilled_head = Head(head.linear.in_features, 2)
            load_weights(classifier.distilled_head.linear, directory / DISTILLED_HEAD, where)

        return classifier.eval()


def normalise(
    images: torch.Tensor, spec: ClassifierSpec, *, first: int = 0, last: int | None = None
) -> torch.Tensor:
    """Return the model's input from stored images (B, S, S, 3) uint8; else as `standardise`."""
    return standardise(images.permute(0, 3, 1, 2).float().div_(255), spec, first=first, last=last)


def standardise(
    images: torch.Tensor, spec: ClassifierSpec, *, first: int = 0, last: int | None = None
) -> torch.Tensor:
    """Return the model's input: views cut, mean subtracted, divided by the standard deviation.

    Args:
        images: (B, 3, S, S) float32 in [0, 1].
        spec: The classifier's specification.
        first: Number of the first view to return, for a multi-view classifier.
        last: Number of the view after the last one to return; None: all from `first`.

    Returns:
        (B, 3, S, S) float32, or (B, V, 3, s, s) for a multi-view classifier.
    """
    parts = images if spec.views is None else cut_views(images, spec.views, first=first, last=last)
    mean, std = _statistics(tuple(spec.image_mean), tuple(spec.image_std), images.device)
    return torch.div(parts - mean, std)


@functools.cache
def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> torch.Tensor:
    """Return mean and standard deviation (2, 3, 1, 1), copied to the device once."""
    with torch.inference_mode(False):
        return torch.tensor([mean, std], device=device).view(2, 3, 1, 1)
