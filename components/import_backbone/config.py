"""Which pretrained backbone does a run start from?"""

from dataclasses import dataclass

from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class ImportBackboneConfig(Config):
    """Parameters of the import."""

    backbone: str = option(
        "",
        "Backbone (DINOv2, DINOv3, ViT): Hugging Face folder, local or s3://, or hub id. Required.",
    )
    backbone_fingerprint: str = option(
        "", "Digest of the backbone's files; set by the pipeline for its cache."
    )
