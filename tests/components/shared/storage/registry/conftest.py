"""A registry in a bucket of its own, and small bundles to put there."""

from pathlib import Path

import pytest

from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.storage import Store, StoreSettings
from components.shared.storage.registry import BundleRegistry
from tests.registries import new_registry


def bundle(path: Path, content: str) -> Path:
    """Write a bundle as far as the registry looks at one: an artifact of that kind."""
    with writing(path, kind="Bundle", step="export_bundle", config=Config()) as staging:
        (staging / "model").mkdir()
        (staging / "model" / "weights.bin").write_text(content)
        (staging / "bundle.json").write_text("{}")
    return path


@pytest.fixture
def registry(s3: StoreSettings) -> BundleRegistry:
    return new_registry(s3)


@pytest.fixture
def store(registry: BundleRegistry) -> Store:
    """The store of the registry."""
    return registry.root.store


@pytest.fixture
def digests(registry: BundleRegistry, tmp_path: Path) -> list[str]:
    """Put four bundles into the registry; return their digests."""
    return [registry.put_bundle(bundle(tmp_path / "up" / name, name)) for name in "abcd"]
