"""ExPLoRA: published numbers of parameters, identity at the start, an adapter that merges."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import Dinov2Config, Dinov2Model

from components.pretrain_explora.explora import prepare_explora
from components.shared.contracts.errors import ConfigError
from components.shared.models import adapters
from tests.components.shared.models.families import FAMILIES, small

PIXELS = torch.linspace(-1, 1, 2 * 3 * 56 * 56).view(2, 3, 56, 56)


def features(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(pixel_values=PIXELS).last_hidden_state


@pytest.mark.parametrize(
    ("width", "blocks", "heads", "lora", "everything"),
    [
        (384, 12, 6, 1_081_344, 2_874_240),
        (768, 12, 12, 2_162_688, 9_287_424),
        (1024, 24, 16, 6_029_312, 18_723_840),  # the paper's 18.7 M
    ],
)
def test_the_published_numbers_of_parameters_are_trained(
    width: int, blocks: int, heads: int, lora: int, everything: int
) -> None:
    with torch.device("meta"):
        model = Dinov2Model(
            Dinov2Config(hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads)
        )
        adapted = prepare_explora(model, rank=64, alpha=1.0, unfrozen_blocks=1)
    trained = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    assert sum(count for name, count in trained.items() if ".lora_" in name) == lora
    assert sum(trained.values()) == everything


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_architecture_starts_as_it_was_reloads_and_merges(kind: str, tmp_path: Path) -> None:
    before = features(small(kind, 3))
    adapted = prepare_explora(small(kind, 3), rank=4, alpha=8.0, unfrozen_blocks=1)
    torch.testing.assert_close(features(adapted), before, rtol=0, atol=0)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert not any("mask_token" in name or "embeddings" in name for name in trained)
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained if ".lora_" in name} == {
        "q_proj",
        "v_proj",
    }
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    after = features(adapted)
    assert (after - before).abs().max() > 1e-2
    adapters.save_adapter(adapted, tmp_path)
    torch.testing.assert_close(
        features(PeftModel.from_pretrained(small(kind, 3), tmp_path)), after, rtol=0, atol=1e-6
    )
    torch.testing.assert_close(features(adapters.merge(adapted, PIXELS)), after, rtol=0, atol=1e-5)


@pytest.mark.parametrize("unfrozen", [0, 3])
def test_some_blocks_must_be_adapted_and_some_unfrozen(unfrozen: int) -> None:
    with pytest.raises(
        ConfigError, match=f"explora_unfrozen_blocks={unfrozen} of a backbone with 3 blocks"
    ):
        prepare_explora(small("vit", 3), rank=4, alpha=8.0, unfrozen_blocks=unfrozen)
