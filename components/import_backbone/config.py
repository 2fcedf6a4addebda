"""Options of the import of a pretrained backbone."""

from dataclasses import dataclass

from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class ImportBackboneConfig(Config):
    """Options of the import."""

    backbone: str = option(
        "",
        "Backbone (DINOv2, DINOv3, ViT): Hugging Face folder, local or s3://, or Hub id"
        " (owner/name or hf://owner/name).",
    )
    backbone_fingerprint: str = option(
        "", "Digest of the backbone's files; set by the pipeline for its cache."
    )
