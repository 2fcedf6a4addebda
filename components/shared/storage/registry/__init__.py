"""Registry of bundles: bundles, provenance, claimed comparisons, decisions, and the champion."""

from components.shared.storage.registry.address import open_registry, registry_uri
from components.shared.storage.registry.bundle_registry import BundleRegistry
from components.shared.storage.registry.documents import (
    Champion,
    Comparison,
    Decision,
    Draft,
    Provenance,
    SplitLineage,
)

__all__ = [
    "BundleRegistry",
    "Champion",
    "Comparison",
    "Decision",
    "Draft",
    "Provenance",
    "SplitLineage",
    "open_registry",
    "registry_uri",
]
