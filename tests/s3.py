"""A real S3 server for the tests: one for a session, a bucket for each test.

The fixtures are those of `tests/conftest.py`.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from components.shared.storage import Store, StoreSettings
from pipelines.local.embedded_store import embedded_store


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    """Start SeaweedFS on free loopback ports."""
    with embedded_store(Path(tmp_path_factory.mktemp("s3"))) as settings:
        yield settings


@pytest.fixture
def bucket(s3: StoreSettings) -> Iterator[str]:
    """Make an empty bucket of the test's own, and remove the bucket afterwards."""
    name = f"test-{secrets.token_hex(6)}"
    store = Store(s3)
    store.make_bucket(name)
    yield name

    for item in store.list(name):
        store.delete(name, item.key)
    pool = urllib3.PoolManager()
    client = Minio(
        s3.endpoint,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        secure=s3.secure,
        http_client=pool,
    )
    with contextlib.suppress(S3Error):  # a test may have left an unfinished upload, or versions
        client.remove_bucket(name)
    pool.clear()
