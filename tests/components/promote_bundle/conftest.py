"""A registry in a bucket of its own, and three runs: the best model, a weak one, and its twin."""

import pytest

from components.shared.contracts.environment import Variable
from components.shared.storage import Store, StoreSettings
from components.shared.storage.registry import BundleRegistry
from tests.promotion import Run, make_run


@pytest.fixture(scope="session")
def best(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The model that the labels come from: 95 % of its decisions are right."""
    return make_run(tmp_path_factory.mktemp("best"), seed=1)


@pytest.fixture(scope="session")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Another model on the same data, hardly better than chance."""
    return make_run(tmp_path_factory.mktemp("weak"), seed=2)


@pytest.fixture
def registry(s3: StoreSettings, bucket: str, monkeypatch: pytest.MonkeyPatch) -> BundleRegistry:
    """The registry that the environment names."""
    monkeypatch.setenv(Variable.S3_ENDPOINT, s3.endpoint)
    monkeypatch.setenv(Variable.S3_ACCESS_KEY, s3.access_key)
    monkeypatch.setenv(Variable.S3_SECRET_KEY, s3.secret_key)
    monkeypatch.setenv(Variable.S3_SECURE, str(s3.secure).lower())
    monkeypatch.setenv(Variable.BUNDLE_REGISTRY, f"s3://{bucket}/registry")
    return BundleRegistry(Store(s3, deadline_seconds=10), bucket, "registry")
