"""Access to an S3 object store: checked reads and writes, artifacts, registry of bundles."""

from components.shared.storage.client import Store, StoredObject, split_uri
from components.shared.storage.registry import BundleRegistry, Champion, open_registry
from components.shared.storage.settings import StoreSettings

__all__ = [
    "BundleRegistry",
    "Champion",
    "Store",
    "StoreSettings",
    "StoredObject",
    "open_registry",
    "split_uri",
]
