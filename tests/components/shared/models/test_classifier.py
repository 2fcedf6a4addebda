"""Heads of several views, and a classifier in training."""

import dataclasses

import pytest
import torch

from components.shared.contracts.errors import ConfigError
from components.shared.models.classifier import (
    BagHead,
    Classifier,
    Head,
    MulticlassBagHead,
    check_input_size,
)
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec
from tests.components.shared.models.families import FAMILIES, small

SPEC = ViewSpec(
    grid=3,
    overlap=0.0,
    flips=False,
    size=8,
    aggregation="max",
    top_k=2,
    sharpness=1.0,
    positive_class="Roadwork",
)


def _spec(aggregation: str, **fields: float | None) -> ViewSpec:
    return dataclasses.replace(SPEC, aggregation=aggregation, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("positive", [0, 1])
def test_a_bags_logits_are_half_its_margin_either_way(positive: int) -> None:
    torch.manual_seed(0)
    head = BagHead(6, _spec("attention"), positive)
    features = torch.randn(4, 10, 6)
    logits = head(features)
    assert logits.shape == (4, 2)
    torch.testing.assert_close(logits.sum(dim=1), torch.zeros(4))
    # The head is linear, so that the margin of the attended features is the attended margin (Ilse
    # et al., eq. 7).
    attended = head.linear(head.pooled(features))
    torch.testing.assert_close(
        logits[:, positive], (attended[:, positive] - attended[:, 1 - positive]) / 2
    )


@pytest.mark.parametrize("aggregation", ["max", "topk_mean", "lse", "noisy_or", "attention"])
def test_classes_are_aggregated_each_from_its_own_views(aggregation: str) -> None:
    torch.manual_seed(0)
    head = MulticlassBagHead(6, 3, _spec(aggregation, positive_class=None))
    features = torch.randn(4, 10, 6)
    probabilities = head.linear(features).softmax(dim=-1).double()
    margins = (probabilities / (1 - probabilities)).log()
    torch.testing.assert_close(head.margins(features).double(), margins, rtol=1e-4, atol=1e-4)

    logits = head(features)
    assert logits.shape == (4, 3)
    if aggregation == "max":
        torch.testing.assert_close(logits.double(), margins.amax(dim=1), rtol=1e-4, atol=1e-4)
    assert head.pooled(features).shape == (4, 6)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_the_gate_of_many_classes_looks_where_the_decision_comes_from() -> None:
    torch.manual_seed(1)
    head = MulticlassBagHead(6, 3, _spec("max", positive_class=None))
    features = torch.randn(5, 10, 6)
    decided = head(features).argmax(dim=1)
    surest = head.margins(features)[torch.arange(5), :, decided].argmax(dim=1)
    torch.testing.assert_close(head.pooled(features), features[torch.arange(5), surest])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_in_training_is_that_of_evaluation_for_every_family(family: str) -> None:
    """DINOv3 would draw the scale of its positions; a micro-batch must not change a sample."""
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    spec = ClassifierSpec(("None", "Roadwork"), 56, half, half, family)
    classifier = Classifier(small(family), Head(64, 2), spec)
    pixels = torch.randn(4, 3, 56, 56)
    expected = classifier.eval()(pixels)

    classifier.train()
    assert classifier.head.training
    torch.testing.assert_close(classifier(pixels), expected, rtol=0, atol=1e-6)
    parts = torch.cat([classifier(part) for part in pixels.split(1)])
    torch.testing.assert_close(parts, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("image_size", "n_patches"), [(13, "0"), (4096, "85,264")])
def test_an_image_without_patches_or_with_far_too_many_is_refused(
    image_size: int, n_patches: str
) -> None:
    spec = ClassifierSpec(("a", "b"), 56, (0.5,) * 3, (0.5,) * 3, "dinov2")
    backbone = small("dinov2")
    check_input_size(spec, backbone, "image_size", error=ConfigError)
    with pytest.raises(ConfigError, match=f"^image_size: .* has {n_patches} patches of 14 x 14"):
        check_input_size(
            dataclasses.replace(spec, image_size=image_size),
            backbone,
            "image_size",
            error=ConfigError,
        )
