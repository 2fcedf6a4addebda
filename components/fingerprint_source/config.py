"""Which places does a run read from, besides its artifacts?"""

from dataclasses import dataclass

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class FingerprintConfig(Config):
    """The outside inputs whose change must reach the cache keys."""

    data: str = option("", "Images: folder with a CSV, or Parquet file or folder. Required.")
    extra_sources: str = option("", "JSON list of further sources to fuse with `data`, each with its own label map.")
    backbone: str = option(
        "", "Backbone (DINOv2, DINOv3, ViT): Hugging Face folder, local or s3://, or hub id. Required."
    )
