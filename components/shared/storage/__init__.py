"""Access to an S3 object store: checked reads and writes, artifacts, registry of bundles.

The registry has a door of its own, `storage.registry`: it is no part of the steps that only read
data, so that a change of it does not run them again.
"""

from components.shared.storage.client import Store, StoredObject, split_uri
from components.shared.storage.settings import StoreSettings

__all__ = ["Store", "StoreSettings", "StoredObject", "split_uri"]
