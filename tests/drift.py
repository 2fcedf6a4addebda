"""A bundle of a random model with a drift reference of noise images, and new images of its kind."""

from pathlib import Path

import numpy as np
from PIL import Image

from components.shared.data.drift_reference import DriftReference, as_half, write_reference
from components.shared.serving.bundle import open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.vision.reference_image import reference_image
from tests.bundles import SIZE, make_inputs, noise, resigned

N_REFERENCE = 60


def write_bundle(root: Path) -> Path:
    """Write the bundle below `root`; its reference has one image of each of 60 groups of 67."""
    plain = make_inputs(root / "inputs").export(root / "plain")
    reference = _reference(Predictor(open_bundle(plain)))
    bundle = root / "bundle"
    return resigned(plain, bundle, lambda out: write_reference(out / "reference", reference))


def write_new_images(folder: Path, *, darker: float = 1.0, count: int = 40) -> Path:
    """Write images that no reference has, as PNG; `darker` multiplies their values."""
    folder.mkdir(parents=True)
    for number, image in enumerate(noise(count, seed=2)):
        Image.fromarray((image * darker).astype(np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def _reference(predictor: Predictor) -> DriftReference:
    pixels = noise(3 * N_REFERENCE, seed=1)
    features, logits, _ = predictor.embedded(pixels[:N_REFERENCE])
    return DriftReference(
        class_names=("None", "Roadwork"),
        features=as_half(features),
        logits=logits.astype(np.float32),
        labels=np.arange(N_REFERENCE) % 2,
        support=as_half(predictor.embedded(pixels[N_REFERENCE:])[0]),
        probe=as_half(predictor.embedded(reference_image(SIZE))[0][0]),
        n_groups=N_REFERENCE + 7,
    )
