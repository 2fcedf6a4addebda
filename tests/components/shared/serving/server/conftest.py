"""One server of the fake engine for the tests that only ask it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.serving_server import Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(body_bytes=200_000, pixels=10_000, client_seconds=1, queued_images=8) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as found:
        yield found
