"""A registry of a test's own, in a bucket that all tests of a session share.

A bucket for each test takes longer to make and to remove than most tests of the registry do.
"""

import secrets

import pytest

from components.shared.contracts.environment import Variable
from components.shared.storage import Store, StoreSettings
from components.shared.storage.registry import BundleRegistry

BUCKET = "registries"


def new_registry(settings: StoreSettings, *, deadline_seconds: float = 10) -> BundleRegistry:
    """Return an empty registry."""
    store = Store(settings, deadline_seconds=deadline_seconds)
    store.make_bucket(BUCKET)
    return BundleRegistry(store, BUCKET, f"{secrets.token_hex(6)}/registry")


def name_registry(
    registry: BundleRegistry, settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the environment name the registry and its store."""
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Variable.BUNDLE_REGISTRY, registry.uri)
