"""Where the registry is: an address that is given, or the environment's."""

import os

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.storage.client import Store, split_uri
from components.shared.storage.registry.bundle_registry import BundleRegistry


def registry_uri(given: str = "") -> str:
    """Return the registry's address, s3://bucket/prefix.

    Args:
        given: the address of an option; empty: that of STREETVISION_BUNDLE_REGISTRY.

    Raises:
        ConfigError: neither is set.
    """
    uri = given or os.environ.get(Variable.BUNDLE_REGISTRY, "")
    if not uri:
        raise ConfigError(
            f"no registry of bundles is named; set {Variable.BUNDLE_REGISTRY} to s3://bucket/prefix"
        )
    return uri


def open_registry(given: str = "") -> BundleRegistry:
    """Return the registry at `registry_uri(given)`; nothing is asked of the store yet.

    Raises:
        ConfigError: the address is missing or malformed, or the store's settings are.
    """
    bucket, prefix = split_uri(registry_uri(given))
    return BundleRegistry(Store.from_environment(), bucket, prefix)
