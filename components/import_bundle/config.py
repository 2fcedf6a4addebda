"""Options of the import of a bundle."""

from dataclasses import dataclass

from components.shared.contracts.config import Config, adjusted, option
from components.shared.contracts.options import NewImagesConfig


@dataclass(frozen=True, kw_only=True)
class ImportBundleConfig(Config):
    """Which bundle is imported, and from where."""

    bundle: str = option(
        "champion",
        "Bundle to import: a folder, s3://bucket/prefix of one, the first digits of its digest in"
        " the registry, or champion.",
    )
    bundle_registry: str = adjusted(NewImagesConfig, "bundle_registry")
