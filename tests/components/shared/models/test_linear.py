"""Heads compute in fp32, whatever the precision of the backbone."""

import torch
from torch import nn

from components.shared.models.classifier import Head
from components.shared.models.gate import GateHead
from components.shared.models.linear import HeadLinear


def test_it_is_a_linear_map_with_the_same_weights() -> None:
    layer, plain = HeadLinear(6, 3), nn.Linear(6, 3)
    plain.load_state_dict(layer.state_dict())
    features = torch.randn(4, 6)
    torch.testing.assert_close(layer(features), plain(features), rtol=0, atol=0)


def test_autocast_and_half_precision_features_give_fp32_logits() -> None:
    torch.manual_seed(0)
    head, gate, features = Head(64, 2).eval(), GateHead(64).eval(), torch.randn(500, 64)
    exact, scores = head(features), gate(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(features), exact)
        assert torch.equal(gate(features), scores)
        assert head(features.bfloat16()).dtype == torch.float32
    # In bfloat16, most of 500 images would share their logit with another.
    assert len(exact[:, 1].unique()) == 500
