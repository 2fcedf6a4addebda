"""Which objects does the store hold, and how are they read and written safely?"""

from components.shared.store.client import Store, StoredObject, split_uri
from components.shared.store.registry import BundleRegistry, Champion
from components.shared.store.settings import StoreSettings

__all__ = ["BundleRegistry", "Champion", "Store", "StoreSettings", "StoredObject", "split_uri"]
