"""Namespace, mode and refusals: recorded refusals of a multi-user KFP, several kubeconfigs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp_server_api import ApiException

from components.shared.contracts.errors import PermanentError, StreetVisionError, TransientError
from pipelines.kubeflow import connection as connection_module
from pipelines.kubeflow.connection import Connection, find_mode
from pipelines.kubeflow.options import ApiOptions
from tests.pipelines.kfp_server import KfpServer, kfp_server, recorded
from tests.pipelines.kubernetes_server import write_kubeconfig

TOKEN_COMMAND = (
    "export STREETVISION_KFP_TOKEN=$(kubectl create token default-editor -n streetvision "
    "--audience pipelines.kubeflow.org --duration 12h)"
)


@pytest.fixture(autouse=True)
def _no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(params=[True, False], ids=["multi-user", "single-user"])
def server(request: pytest.FixtureRequest) -> Iterator[KfpServer]:
    """An API of either mode."""
    with kfp_server(multi_user=request.param) as running:
        yield running


def _refusal(status: int, body: Any) -> str:
    error = ApiException(status=status, reason="no")
    error.body = body if isinstance(body, str) else json.dumps(body)
    with (
        pytest.raises(StreetVisionError) as caught,
        Connection(host="http://kfp").asking("list the runs"),
    ):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (
            "runs-expired",
            "HTTP 401 invalid bearer token, service account token has expired; make a token: ",
        ),
        (
            "runs-wrong-audience",
            (
                "HTTP 401 invalid bearer token, token audiences"
                ' ["https://kubernetes.default.svc.cluster.local"] is invalid for the target'
                ' audiences ["pipelines.kubeflow.org"]; make a token: '
            ),
        ),
        ("runs-garbage", "HTTP 401 invalid bearer token; make a token: "),
        ("runs-no-identity", "HTTP 401 there is no user identity header; make a token: "),
    ],
)
def test_a_recorded_401_ends_with_its_cause_and_the_command(name: str, cause: str) -> None:
    message = _refusal(401, recorded(f"api-multi-user/{name}"))
    assert message.startswith(f"http://kfp refused to list the runs: {cause}")
    assert message.endswith(f"{TOKEN_COMMAND}, or set STREETVISION_KFP_COOKIE to a new session")


def test_a_recorded_403_says_who_may_not_do_what() -> None:
    message = _refusal(403, recorded("api-multi-user/runs-forbidden"))
    assert (
        "HTTP 403 user 'system:serviceaccount:other:default-editor' may not list runs in namespace"
        " 'streetvision'" in (message)
    )
    assert f"make a token of the namespace 'streetvision' (the default): {TOKEN_COMMAND}" in message


def test_the_command_names_the_namespace_that_was_asked_for() -> None:
    error = ApiException(status=403, reason="no")
    error.body = json.dumps(recorded("api-multi-user/runs-forbidden"))
    with (
        pytest.raises(PermanentError, match="-n mine --audience"),
        Connection(host="http://kfp", namespace="mine").asking("list"),
    ):
        raise error


def test_other_recorded_refusals_are_short() -> None:
    assert (
        "HTTP 404 Run 00000000-0000-0000-0000-000000000000 not found; it does not exist there"
        in _refusal(404, recorded("api/run-not-found"))
    )
    assert "HTTP 400 A run cannot have an empty namespace in multi-user mode" in _refusal(
        400, recorded("api-multi-user/runs-no-namespace")
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("upstream connect error", "HTTP 503 upstream connect error;"),
        ('{"error": "no backend"}', "HTTP 503 no backend;"),
        ("", "HTTP 503;"),
        ("[1]", "HTTP 503 [1];"),
        (json.dumps({"message": "a" * 2000 + " the cause"}), "a the cause;"),
    ],
)
def test_refusals_of_another_form(body: str, said: str) -> None:
    message = _refusal(503, body)
    assert said in message
    assert "see the API server's log" in message


def _parsed(server: KfpServer, namespace: str | None = None) -> ApiOptions:
    return ApiOptions(host=server.host, namespace=namespace, ca_file=None)


def test_without_anything_the_namespace_is_that_of_the_overlays(server: KfpServer) -> None:
    mode = find_mode(_parsed(server))
    assert (mode.multi_user, mode.namespace) == (
        (True, "streetvision") if server.multi_user else (False, "kubeflow")
    )
    assert mode.api_namespace == ("streetvision" if server.multi_user else None)
    assert mode.origin == "the default"


def test_the_option_wins_over_kubeconfig_and_kubeconfig_over_the_default(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_kubeconfig(tmp_path / "config", "http://127.0.0.1:9", "mine")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    mode = find_mode(_parsed(server))
    assert (mode.namespace, mode.origin) == ("mine", "kubeconfig's context 'x'")
    assert find_mode(_parsed(server, "given")).namespace == "given"


@pytest.mark.parametrize("namespace", ["", "default"])
def test_kubeconfigs_default_is_no_namespace_of_runs(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, namespace: str
) -> None:
    write_kubeconfig(tmp_path / "config", "http://127.0.0.1:9", namespace)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert find_mode(_parsed(server)).origin == "the default"


def test_a_pod_of_a_profile_asks_for_its_own_namespace(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "namespace").write_text("notebooks\n")
    monkeypatch.setattr(connection_module, "_POD_NAMESPACE", tmp_path / "namespace")
    assert find_mode(_parsed(server)).namespace == (
        "notebooks" if server.multi_user else "kubeflow"
    )


@pytest.mark.parametrize("text", ["not: [yaml", "", "current-context: gone\ncontexts: []\n"])
def test_a_broken_kubeconfig_is_passed_over(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert find_mode(_parsed(server)).origin == "the default"


def test_an_api_that_is_not_there_is_transient(tmp_path: Path) -> None:
    parsed = ApiOptions(host="http://127.0.0.1:9", namespace=None, ca_file=None)
    with pytest.raises(
        TransientError, match=r"http://127\.0\.0\.1:9 cannot be reached .*is the address right"
    ):
        find_mode(parsed)
