"""Who answers behind an InferenceService, through an HTTP server in the place of the API.

No cluster with KServe is at hand: the objects below are made by hand from KServe's types (v0.20.0,
pkg/apis/serving/v1beta1) and its guide of canaries, and validated by its own schema.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.environment import S3_VARIABLES, Variable
from components.shared.storage import StoreSettings
from components.shared.storage.registry import Draft
from pipelines.cli.app import main
from tests.golden.make import FOLDER
from tests.manifests.kserve import problems
from tests.pipelines.kubernetes_server import KubernetesServer, kubernetes_server, write_kubeconfig
from tests.registries import new_registry

NAMESPACE = "streetvision"
SERVICE = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices/streetvision"
REVISIONS = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/revisions"
OLD, NEW = "streetvision-predictor-00001", "streetvision-predictor-00002"
FOLLOW = ["--follow", "s3://streetvision/registry", "--no-grpc"]
DIGEST = ["3f2a9c1b7d4e", "--bundle-registry", "s3://streetvision/registry", "--no-grpc"]


def _container(args: list[str]) -> dict[str, Any]:
    return {"name": "kserve-container", "image": "streetvision/server", "args": args}


def _service(*traffic: dict[str, Any], created: str, args: list[str]) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "streetvision", "namespace": NAMESPACE},
        "spec": {"predictor": {"containers": [_container(args)]}},
        "status": {
            "url": "http://streetvision.example.com",
            "conditions": [{"type": "PredictorReady", "status": "True"}, ready],
            "components": {
                "predictor": {"latestCreatedRevision": created, "traffic": list(traffic)}
            },
        },
    }


CANARY = _service(
    {"latestRevision": True, "percent": 20, "revisionName": NEW},
    {"latestRevision": False, "percent": 80, "revisionName": OLD, "tag": "prev"},
    created=NEW,
    args=DIGEST,
)
ALONE = _service(
    {"latestRevision": True, "percent": 100, "revisionName": OLD}, created=OLD, args=FOLLOW
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """An API with two revisions; KUBECONFIG leads to it and to the namespace."""
    for name in (*S3_VARIABLES, Variable.BUNDLE_REGISTRY, Variable.KFP_ENDPOINT):
        monkeypatch.delenv(name, raising=False)
    with kubernetes_server() as found:
        write_kubeconfig(tmp_path / "kubeconfig", found.host, NAMESPACE)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        for name, args in ((OLD, FOLLOW), (NEW, DIGEST)):
            revision = {"metadata": {"name": name}, "spec": {"containers": [_container(args)]}}
            found.answers[f"{REVISIONS}/{name}"] = revision
        yield found


def _code(*arguments: str) -> int:
    try:
        main(["serving", "status", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("service", [CANARY, ALONE])
def test_the_objects_are_kserves(service: dict[str, Any]) -> None:
    assert problems(service) == []


def test_champion_and_challenger_with_their_traffic(
    server: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers[SERVICE] = CANARY
    assert _code() == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "warning: which bundle the champion is cannot be said; name the registry: --bundle-registry"
        " s3://bucket/prefix\n"
    )
    assert printed.out.splitlines() == [
        "streetvision: ready, http://streetvision.example.com",
        f"champion    80 %  champion ({OLD})",
        f"challenger  20 %  3f2a9c1b7d4e ({NEW})",
    ]


def test_the_champion_s_digest_is_that_of_the_registry(
    server: KubernetesServer,
    s3: StoreSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answers[SERVICE] = CANARY
    registry = new_registry(s3)
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    assert _code("--bundle-registry", registry.uri) == 0
    assert capsys.readouterr().err.endswith(f"; {registry.uri} has no champion\n")

    digest = registry.put_bundle(FOLDER / "bundle")
    draft = Draft(kind="first", promoted=True, challenger=digest, reason="test")
    registry.decide(draft, over=None)
    assert _code("--bundle-registry", registry.uri) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[1:] == [
        f"champion    80 %  champion {digest[:12]} ({OLD})",
        f"challenger  20 %  3f2a9c1b7d4e ({NEW})",
    ]
    monkeypatch.setenv(Variable.BUNDLE_REGISTRY, registry.uri)
    assert _code("--json") == 0
    assert json.loads(capsys.readouterr().out)["champion"] == digest


def test_the_champion_alone_as_json(
    server: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers[SERVICE] = ALONE
    assert _code("--namespace", NAMESPACE, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["champion"] is None
    (backend,) = document["backends"]
    assert backend == {
        "role": "champion",
        "percent": 100,
        "revision": OLD,
        "bundle": "champion",
        "ready": True,
    }


def test_a_challenger_that_does_not_start_is_shown_with_the_reason(
    server: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    service = copy.deepcopy(ALONE)
    service["spec"]["predictor"]["containers"] = [_container(DIGEST)]
    service["status"]["components"]["predictor"]["latestCreatedRevision"] = NEW
    service["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "exit code 42"}
    ]
    server.answers[SERVICE] = service
    assert _code() == 1
    assert capsys.readouterr().out.splitlines() == [
        "streetvision: not ready, http://streetvision.example.com",
        f"champion   100 %  champion ({OLD})",
        f"challenger   0 %  3f2a9c1b7d4e ({NEW}), not ready",
        "Ready: exit code 42",
    ]


def test_without_knative_there_is_one(
    server: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    service = copy.deepcopy(ALONE)
    service["status"]["components"] = {"predictor": {}}
    server.answers[SERVICE] = service
    assert _code() == 0
    assert capsys.readouterr().out.splitlines()[1] == "champion   100 %  champion"


def test_a_revision_that_may_not_be_read_is_unknown(
    server: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers |= {SERVICE: ALONE, f"{REVISIONS}/{OLD}": 403}
    assert _code() == 0
    assert f"unknown ({OLD})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [(404, "has no InferenceService 'streetvision'; is it another"), (403, "HTTP 403 Forbidden")],
)
def test_a_service_that_is_not_there_is_one_line(
    server: KubernetesServer, capsys: pytest.CaptureFixture[str], answer: int, message: str
) -> None:
    server.answers[SERVICE] = answer
    assert _code() == 42
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
