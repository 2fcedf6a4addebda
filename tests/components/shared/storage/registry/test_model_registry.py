"""Entries in a Kubeflow Model Registry, by its real client against a local HTTP server.

The server stands for the Model Registry: it answers with the fields that the client's generated
models validate. Without the extra `model-registry` only the refusal is tested.
"""

import importlib.util
import json
from typing import Any

import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.storage.registry.model_registry import check_address, enter
from tests.components.shared.storage.registry.receiver import Request, receiving

ROOT = "/api/model_registry/"


class _Server:
    """Registered models, versions and artifacts, as the REST API shows them."""

    def __init__(self) -> None:
        self.of_kind: dict[str, list[dict[str, Any]]] = {}

    def answer(self, request: Request) -> tuple[int, Any]:
        path, _, query = request.path.partition("?")
        kind = path.rsplit("/", 1)[-1]
        if request.method == "POST":
            document = json.loads(request.body)
            found = self.of_kind.setdefault(kind, [])
            found.append({**document, "id": str(len(found) + 1)})
            return 201, found[-1]
        if kind == "registered_models":
            return 200, {"items": [], "nextPageToken": "", "pageSize": 1, "size": 0}
        name = next(part for part in query.split("&") if part.startswith("name="))[5:]
        for item in self.of_kind.get(f"{kind}s", []):
            if item["name"] == name:
                return 200, item
        return 404, {"code": "not_found", "message": "none"}


def _enter(url: str, version: str = "000001-abc") -> str:
    return enter(
        url,
        name="roadwork",
        version=version,
        uri="s3://bucket/registry/bundles/abc",
        author="",
        metadata={"decision": 1, "reason": "better"},
    )


@pytest.mark.parametrize("url", ["registry:8080", "ftp://registry", "http://u:planted@registry"])
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="model_registry_url") as raised:
        check_address(url)
    assert "planted" not in str(raised.value)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'streetvision\[model-registry\]'"):
        check_address("http://registry:8080")


def test_a_version_is_registered_once_with_its_address() -> None:
    pytest.importorskip("model_registry", reason="the extra model-registry is not installed")
    server = _Server()
    with receiving(server.answer) as receiver:
        check_address(receiver.url)
        assert _enter(receiver.url) == ""
        assert _enter(receiver.url) == ""  # a retry
        assert _enter(receiver.url, "000002-def") == ""
    assert all(request.path.startswith(ROOT) for request in receiver.requests)
    (model,) = server.of_kind["registered_models"]
    assert model["name"] == "roadwork"
    assert [item["name"] for item in server.of_kind["model_versions"]] == [
        "000001-abc",
        "000002-def",
    ]
    first, _ = server.of_kind["artifacts"]
    assert first["uri"] == "s3://bucket/registry/bundles/abc"
    assert first["modelFormatName"] == "streetvision-bundle"
    properties = server.of_kind["model_versions"][0]["customProperties"]
    assert properties["reason"]["string_value"] == "better"
    assert properties["decision"]["int_value"] == "1"


def test_a_failure_is_said_in_one_line() -> None:
    pytest.importorskip("model_registry", reason="the extra model-registry is not installed")
    with receiving(lambda _: (403, {"code": "forbidden", "message": "no"})) as receiver:
        problem = _enter(receiver.url)
    assert problem.startswith("Model Registry: ")
    assert "\n" not in problem
