"""Requests to the Kubernetes API: token, authorities, answers."""

from pathlib import Path

import pytest

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.training.launch import kubernetes_api
from components.shared.training.launch.kubernetes_api import (
    ApiRefusedError,
    ApiUnavailableError,
    KubernetesApi,
)
from tests.components.shared.training.kubeflow_trainer import JOBS, NAMESPACE, cluster


def test_the_token_is_read_anew_for_every_request(tmp_path: Path) -> None:
    """Kubernetes replaces the file within an hour."""
    with cluster(tmp_path) as server:
        api = server.api()
        assert api.namespace == NAMESPACE
        assert api.read(f"{JOBS}/none") is None
        (tmp_path / "account/token").write_text("outdated")
        with pytest.raises(ApiRefusedError, match="HTTP 401 Unauthorized"):
            api.read(f"{JOBS}/none")


def test_an_api_that_does_not_answer_is_named_without_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(tmp_path) as server:
        api = server.api()
    monkeypatch.setattr(api._pool, "connection_pool_kw", {"retries": False})
    with pytest.raises(ApiUnavailableError, match="GET /x: ") as caught:
        api.read("/x")
    assert "token-of-the-step" not in str(caught.value)


@pytest.mark.parametrize(("host", "url"), [("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")])
def test_the_api_of_a_pod_is_found_by_what_kubernetes_puts_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, url: str
) -> None:
    monkeypatch.setattr(kubernetes_api, "_ACCOUNT", tmp_path)
    monkeypatch.setenv(Variable.KUBERNETES_SERVICE_HOST, host)
    monkeypatch.setenv(Variable.KUBERNETES_SERVICE_PORT, "6443")
    with pytest.raises(ConfigError, match="outside of a cluster"):
        KubernetesApi.of_pod()
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("runs\n")
    api = KubernetesApi.of_pod()
    assert (api.namespace, api._url) == ("runs", f"https://{url}:6443")
