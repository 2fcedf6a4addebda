"""Graphs from the pixels of images to the policy's decisions: the modules that ONNX is made from.

The network is the bundle's own, as its files hold it: calibrator and threshold are taken out of
the head's output again, as `Predictor` does, and the policy decides in float64.
"""

from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from components.export_bundle.onnx_policy import PolicyModule
from components.shared.models.positions import bake_positions
from components.shared.policies.logit_affine import LogitAffine
from components.shared.policies.policy import Policy
from components.shared.serving.predictor import Network
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec, tile_boxes


class Output(NamedTuple):
    """What an output of a graph is, as format.json describes it."""

    name: str
    dtype: str
    axes: str
    meaning: str


class _Graph(nn.Module):
    """From images (N, S, S, 3) uint8 RGB to the outputs of `outputs`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Network, policy: Policy) -> None:
        super().__init__()
        spec = network.classifier.spec
        self.backbone_and_head = network.classifier
        self.gate, self.order, self.spec = network.gate, list(network.order), spec
        self.gate_head = None if network.gate is None else network.gate.head
        self.policy = PolicyModule(policy)
        self.fold = None if network.fold is None else _Unfold(network.fold)
        self.register_buffer("mean", torch.tensor(spec.image_mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.image_std).view(1, 3, 1, 1))
        # PyTorch's fused attention is exported with a search for rows in which everything is
        # masked. Nothing is masked here, and the search takes 5 % of the time.
        network.classifier.backbone.set_attn_implementation("eager")
        _fix_positions(network.classifier.backbone, _input_size(spec))

    @property
    def outputs(self) -> list[Output]:
        """The outputs, in order."""
        outcomes = self.policy.policy.outcomes
        subject = outcomes.positive_class or "the most probable class"
        found = [
            Output("margin", "float32", "N", f"calibrated log-odds of {subject}"),
            Output("probability", "float32", "N", f"calibrated probability of {subject}"),
            Output("decision", "int64", "N", "code of the answer, see decisions"),
            Output("logits", "float32", "N, C", "before calibration, in the order of the classes"),
        ]
        if outcomes.positive is None:
            found += [
                Output("probabilities", "float32", "N, C", "calibrated"),
                Output("members", "bool", "N, C", "the classes that an answer names"),
            ]
        if self.gate is not None:
            found.append(Output("gate", "float32", "N", "raw score of the gate"))
        return found

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Return (N, 3, S, S) float32 in [0, 1]."""
        return images.float().permute(0, 3, 1, 2) / 255

    def features(self, parts: torch.Tensor) -> torch.Tensor:
        """Return (..., F) float32 features of (..., 3, s, s) pixels in [0, 1]."""
        return self.backbone_and_head.features((parts - self.mean) / self.std)

    def decided(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs for features (N, F), or (N, V, F) of views."""
        head = self.backbone_and_head.head
        logits = head(features).double()[:, self.order]
        if self.fold is not None:
            logits = self.fold(logits)
        gate = None if self.gate is None else self.gate.scores(head.pooled(features), logits)

        found = self.policy(logits, gate)
        probabilities = found.probabilities.float()
        values = {
            "margin": found.margin.float(),
            "probability": probabilities[:, 1],
            "decision": found.decision,
            "logits": logits.float(),
        }
        if self.policy.policy.outcomes.positive is None:
            values |= {
                "probability": probabilities.amax(dim=1),
                "probabilities": probabilities,
                "members": found.members,
            }
        if gate is not None:
            values["gate"] = gate.float()
        return list(values.values())


class ModelGraph(_Graph):
    """The model of one view; of several, the full image alone, with its features as last output."""

    @property
    def outputs(self) -> list[Output]:
        """The outputs, in order."""
        if self.spec.views is None:
            return super().outputs
        return [
            *super().outputs,
            Output("features", "float32", "N, F", "of the full image, for tiles.onnx"),
        ]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs for images (N, S, S, 3) uint8."""
        pixels = self.pixels(images)
        if self.spec.views is None:
            return tuple(self.decided(self.features(pixels)))
        features = self.features(_resized(pixels, self.spec.views.size))
        return (*self.decided(features[:, None]), features)


class TilesGraph(_Graph):
    """All views of a model of several: the tiles of images, and the features of the full image."""

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs for images (N, S, S, 3) uint8 and features (N, F)."""
        views = self.spec.views
        assert views is not None, "a model of one view has no tiles"
        tiles = self.features(_tiles(self.pixels(images), views))
        return tuple(self.decided(torch.cat([features[:, None], tiles], dim=1)))


class _Unfold(nn.Module):
    """Takes calibrator and threshold out of stored logits: `LogitAffine.inverse`."""

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, fold: LogitAffine) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(fold.scale))
        self.register_buffer("offset", torch.from_numpy(fold.offset))

    def forward(self, stored: torch.Tensor) -> torch.Tensor:
        """Return logits (N, C) float64 of the stored ones."""
        return (stored - self.offset) / self.scale


def _input_size(spec: ClassifierSpec) -> int:
    """Return the side in pixels of what the backbone sees."""
    return spec.image_size if spec.views is None else spec.views.size


def _tiles(x_NCHW: torch.Tensor, views: ViewSpec) -> torch.Tensor:
    """Return the views (N, V - 1, 3, s, s) after the first one, as `cut_views`."""
    image_size = x_NCHW.shape[-1]
    boxes = [(0, 0, image_size), *tile_boxes(image_size, views)]
    parts = []
    for number in range(1, views.count):
        left, top, side = boxes[number % len(boxes)]
        part = _resized(x_NCHW[..., top : top + side, left : left + side], views.size)
        parts.append(part.flip(-1) if number >= len(boxes) else part)
    return torch.stack(parts, dim=1)


def _resized(x_NCHW: torch.Tensor, size: int) -> torch.Tensor:
    """Return (N, 3, s, s) by antialiased bicubic interpolation, as two products of matrices.

    The interpolation is linear and separable, and its weights are PyTorch's own. ONNX's Resize has
    an antialiased form too, but each runtime computes it in its own way.
    """
    before = x_NCHW.shape[-1]
    if before == size:
        return x_NCHW
    identity = torch.eye(before)[None, None]
    weights = F.interpolate(
        identity, (size, before), mode="bicubic", antialias=True, align_corners=False
    )[0, 0]
    return (weights @ x_NCHW @ weights.T).clamp(0, 1)


def _fix_positions(backbone: Any, image_size: int) -> None:
    """Make the positions of images of one size constants, in place."""
    bake_positions(backbone, image_size)
    for module in backbone.modules():
        if hasattr(module, "interpolate_pos_encoding"):
            module.interpolate_pos_encoding = MethodType(_own_positions, module)
        elif hasattr(module, "inv_freq"):
            pixels = torch.zeros(1, 3, image_size, image_size)
            with torch.no_grad():
                module.rotations = module(pixels)
            module.forward = MethodType(_own_rotations, module)


def _own_positions(module: Any, *_: object) -> torch.Tensor:
    return torch.Tensor(module.position_embeddings)


def _own_rotations(module: Any, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    cosines, sines = module.rotations
    return cosines, sines
