"""Options of the scoring of many images."""

from dataclasses import dataclass

from components.shared.contracts.config import Config, adjusted, option
from components.shared.contracts.formats import FORMATS, TRANSFORMERS
from components.shared.contracts.options import NewImagesConfig


@dataclass(frozen=True, kw_only=True)
class ScoreImagesConfig(Config):
    """Which images are scored, and by which form of the bundle."""

    images: str = adjusted(
        NewImagesConfig,
        "images",
        help="Images: a folder or s3://bucket/prefix, searched to any depth.",
    )
    form: str = option(
        TRANSFORMERS,
        "Form of the bundle that answers; others than transformers compute without torch.",
        choices=FORMATS,
    )
