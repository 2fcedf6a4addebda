"""The demo backbone is a stock DINOv2 folder with reproducible weights."""

from pathlib import Path

import numpy as np
import torch

from components.import_backbone.backbone_sources import copy_backbone
from components.shared.models.backbone import image_statistics, load_backbone, patch_and_cls
from pipelines.demo.backbone import HIDDEN, IMAGE_SIZE, cosine_patterns, write_demo_backbone


def test_it_loads_and_gives_finite_features_that_depend_on_the_image(tmp_path: Path) -> None:
    write_demo_backbone(tmp_path / "backbone")
    (tmp_path / "imported").mkdir()
    copy_backbone(str(tmp_path / "backbone"), tmp_path / "imported")
    backbone = load_backbone(tmp_path / "imported").eval()
    pixels = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = patch_and_cls(backbone, pixels)
    assert features.shape == (2, 2 * HIDDEN)
    assert torch.isfinite(features).all()
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    assert image_statistics(str(tmp_path / "backbone"))[0] == (0.485, 0.456, 0.406)


def test_equal_seeds_give_equal_files_and_the_callers_random_numbers_are_untouched(
    tmp_path: Path,
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_demo_backbone(tmp_path / name, seed=seed)
    assert torch.equal(torch.rand(3), expected)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert (tmp_path / "a" / "demo.json").read_bytes() == (
        tmp_path / "b" / "demo.json"
    ).read_bytes()


def test_a_complete_folder_is_left_alone(tmp_path: Path) -> None:
    write_demo_backbone(tmp_path / "backbone")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "backbone").iterdir()}
    write_demo_backbone(tmp_path / "backbone")
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "backbone").iterdir()}


def test_cosine_patterns_are_orthonormal() -> None:
    flat = cosine_patterns().reshape(HIDDEN, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(HIDDEN), atol=1e-5)
