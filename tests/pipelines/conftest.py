"""Fixtures that several rooms of the pipelines' tests share."""

from collections.abc import Iterator

import pytest

from tests.pipelines.kubernetes_server import KubernetesServer, kubernetes_server


@pytest.fixture
def kubernetes() -> Iterator[KubernetesServer]:
    """Serve a Kubernetes API without objects."""
    with kubernetes_server() as server:
        yield server
