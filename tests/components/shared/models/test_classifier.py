"""A bag's logits are plus and minus half the aggregated margin."""

import dataclasses

import pytest
import torch

from components.shared.models.classifier import BagHead
from components.shared.vision.view_spec import ViewSpec

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


def _spec(aggregation: str, **fields: float) -> ViewSpec:
    return dataclasses.replace(SPEC, aggregation=aggregation, **fields)


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
