"""The classifier before training has the backbone that its mode trains."""

from pathlib import Path

import pytest
import torch

from components.shared.data.dataset import Dataset
from components.shared.models.backbone import tokens_of
from components.shared.training.classifier.build import build
from components.shared.training.classifier.config import ClassifierConfig
from tests.components.conftest import TinyRun
from tests.components.shared.models.families import small


@pytest.mark.parametrize("tile", [None, 28])
def test_a_backbone_that_is_trained_in_full_has_the_positions_of_its_input(
    tiny: TinyRun, tmp_path: Path, tile: int | None
) -> None:
    data = Dataset.open(tiny.dataset)
    small("dinov2").save_pretrained(tmp_path)  # for images of 56 pixels
    views = {} if tile is None else {"tile_grid": 2, "tile_size": tile}
    side = tile or data.image_size
    tokens = {}
    for mode in ("full", "lora"):
        config = ClassifierConfig.from_mapping({"mode": mode, "task": "binary"} | views)
        backbone = build(config, data, tmp_path).backbone.eval()
        expected = side if mode == "full" else 56
        assert backbone.config.image_size == expected
        with torch.no_grad():
            tokens[mode] = tokens_of(backbone, torch.ones(1, 3, side, side))
    assert torch.equal(tokens["full"], tokens["lora"])
