"""Which objects does the store hold, and how are they read and written safely?"""

from components.shared.storage.client import Store, StoredObject, split_uri
from components.shared.storage.registry import BundleRegistry, Champion
from components.shared.storage.settings import StoreSettings

__all__ = ["BundleRegistry", "Champion", "Store", "StoreSettings", "StoredObject", "split_uri"]
