"""Options of the choice of images that are worth a label."""

from dataclasses import dataclass
from typing import Any

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import NewImagesConfig, NewImagesForm, SeedConfig


@dataclass(frozen=True, kw_only=True)
class SelectForLabellingConfig(NewImagesConfig):
    """Which images are looked at, by which bundle, and how many are chosen."""

    bundle: str = option(
        "champion",
        "Bundle that judges the images: a folder, s3://bucket/prefix of one, the first digits of"
        " its digest in the registry, or champion.",
    )
    n_images: int = option(100, "Number of images to choose.", ge=1, le=100_000)
    max_images: int = option(
        20_000, "Most images that are looked at, drawn from all.", ge=1, le=1_000_000
    )
    image_address: str = option(
        "",
        "Address below which Label Studio finds the images; empty: that of `images`, or for a"
        " folder Label Studio's local storage (/data/local-files/?d=).",
    )
    seed: int = adjusted(SeedConfig, "seed", help="Seed of the choice of images.")


@dataclass(frozen=True, kw_only=True)
class LabellingForm(NewImagesForm):
    """Parameters of a run of the pipeline `labelling`."""

    STEP = SelectForLabellingConfig

    bundle: str = adjusted(SelectForLabellingConfig, "bundle")
    options: dict[str, Any] = adjusted(
        NewImagesForm,
        "options",
        help="Further options of select_for_labelling by name, such as {n_images: 200}.",
    )
