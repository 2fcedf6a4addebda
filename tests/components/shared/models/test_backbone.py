"""All supported families load through Auto classes; features are CLS and mean patch token."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from components.shared.contracts.errors import DataError
from components.shared.models.backbone import (
    exact_tokens,
    image_statistics,
    load_backbone,
    n_prefix_tokens,
    patch_and_cls,
    tokens_of,
)
from tests.components.shared.models.families import FAMILIES, small


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_loads_and_its_patches_are_its_own(family: str, tmp_path: Path) -> None:
    small(family).save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path)).eval()
    pixels = torch.randn(2, 3, 70, 70)  # another size than the pretrained one: 25 patches
    with torch.no_grad():
        extra = {"interpolate_pos_encoding": True} if family == "vit" else {}
        tokens = backbone(pixel_values=pixels, **extra).last_hidden_state
        features = patch_and_cls(backbone, pixels)
    assert tokens.shape[1] - n_prefix_tokens(backbone) == 25
    torch.testing.assert_close(
        features, torch.cat([tokens[:, 0], tokens[:, -25:].mean(dim=1)], dim=1)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trainable_parameter_takes_part(family: str, tmp_path: Path) -> None:
    """DDP without find_unused_parameters needs a gradient for each."""
    small(family).save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path)).train()
    patch_and_cls(backbone, torch.randn(1, 3, 56, 56)).sum().backward()
    assert [
        name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None
    ] == []


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    BertModel(
        BertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=16,
            vocab_size=32,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(
        DataError, match="is a 'bert', supported: dinov2, dinov2_with_registers, dinov3_vit, vit"
    ):
        load_backbone(str(tmp_path))


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no config.json; it is not a Hugging Face model folder"
    ) as caught:
        load_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_statistics_are_imagenets_where_none_are_recorded(tmp_path: Path) -> None:
    assert image_statistics(str(tmp_path)) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_real_backbone_gives_its_features(dinov2_small: Path) -> None:
    backbone = load_backbone(str(dinov2_small)).eval()
    with torch.no_grad():
        assert patch_and_cls(backbone, torch.zeros(1, 3, 224, 224)).shape == (1, 768)


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_tokens_are_those_of_the_same_weights_without_rounding(family: str) -> None:
    backbone, pixels = small(family), torch.randn(2, 3, 70, 70)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    exact = exact_tokens(backbone, pixels)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), tokens_of(backbone, pixels), rtol=0, atol=1e-4)
    after = backbone.state_dict()
    assert all(
        value.dtype == after[name].dtype and torch.equal(value, after[name])
        for name, value in before.items()
    )
