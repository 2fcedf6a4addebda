"""The study finds faithful explanations where they must be faithful: tokens that see one patch."""

import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

from components.shared.models.classifier import Classifier, Head
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.studies.explanations import FILLS, FRACTIONS, Scene, deletions, orders, table, without


def _scene(seed: int) -> Scene:
    """Noise, seen by a backbone without a block: a token is its patch, CLS a constant."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=0, num_attention_heads=2, patch_size=14, image_size=112
    )
    spec = ClassifierSpec(("a", "b"), 112, (0.5,) * 3, (0.5,) * 3, "dinov2", None)
    head = Head(32, 2)
    torch.nn.init.normal_(head.linear.weight, std=3.0)
    classifier = Classifier(Dinov2Model(config).eval(), head, spec).eval()
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((14, 14, 1), dtype=np.uint8))
    return Scene(pixels, classifier, 1, None, f"g{seed}")


def test_where_a_token_is_its_patch_the_parts_say_what_deletion_does() -> None:
    found = [deletions(_scene(seed), seed) for seed in range(20)]
    for fill in FILLS:
        means = {
            order: np.mean([one[fill].drops[order] for one in found])
            for order in ("speaks for", "random", "speaks against", "moved map")
        }
        assert means["speaks for"] > means["random"] + 0.1
        assert means["random"] > means["speaks against"] + 0.1
        assert means["speaks for"] > means["moved map"] + 0.1 > means["speaks against"] + 0.2
    lines = list(table(found, [f"g{seed}" for seed in range(20)]))
    assert len(lines) == 2 + 4 * len(FILLS)
    assert "too few groups" not in lines[2]


def test_the_first_patches_of_an_order_are_filled() -> None:
    parts = np.arange(16, dtype=np.float64).reshape(4, 4)
    found = orders(parts, np.random.default_rng(0))
    (first,), (last,) = found["speaks for"], found["speaks against"]
    assert (first[0], last[0]) == (15, 0)
    assert np.array_equal(first, last[::-1])
    (moved,) = found["moved map"]
    assert moved[0] == 5  # two rows up and two columns to the left of the last patch

    pixels, fill = np.zeros((28, 28, 3), dtype=np.uint8), np.ones((28, 28, 3), dtype=np.uint8)
    images = without(pixels, fill, first, (4, 4))
    assert images.shape == (len(FRACTIONS), 28, 28, 3)
    for image, fraction in zip(images, FRACTIONS, strict=True):
        assert image[..., 0].sum() == round(16 * fraction) * 49
        assert image[27, 27, 0] == 1
