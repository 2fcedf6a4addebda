"""Options of the choice of images that are worth a label."""

from dataclasses import dataclass

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import SeedConfig


@dataclass(frozen=True, kw_only=True)
class SelectForLabellingConfig(SeedConfig):
    """Which images are looked at, by which bundle, and how many are chosen."""

    bundle: str = option(
        "champion",
        "Bundle that judges the images: a folder, s3://bucket/prefix of one, the first digits of"
        " its digest in the registry, or champion.",
    )
    bundle_registry: str = option(
        "",
        "Registry of bundles, s3://bucket/prefix; empty: that of STREETVISION_BUNDLE_REGISTRY.",
    )
    images: str = option("", "New images: a folder or s3://bucket/prefix, searched to any depth.")
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
