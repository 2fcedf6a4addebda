"""A real S3 server for the tests: one for a session, a bucket for each test.

The fixtures are those of `tests/conftest.py`.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.shared.storage import Store, StoreSettings
from pipelines.local.embedded_store import embedded_store


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Start SeaweedFS on free loopback ports."""
    with embedded_store(Path(tmp_path_factory.mktemp("s3"))) as settings:
        yield settings


@pytest.fixture
def bucket(s3: StoreSettings) -> str:
    """Make an empty bucket of the test's own."""
    name = f"test-{secrets.token_hex(6)}"
    Store(s3).make_bucket(name)
    return name
