"""The doctor against recorded answers of a Kubernetes API and a real S3 server."""

import base64
import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import pytest
import yaml

from components.shared.store import Store, StoreSettings
from pipelines.cli import main
from tests.s3 import s3

__all__ = ["s3"]
RECORDED = json.loads((Path(__file__).parent / "kubernetes_answers.json").read_text())
NAMESPACE = "/api/v1/namespaces/streetvision"


class _Api(ThreadingHTTPServer):
    """Answers by path; a number is an error's status."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers


class _Handler(BaseHTTPRequestHandler):
    server: _Api

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        selector = "".join(
            parse_qs(parts.query).get("fieldSelector", []) + parse_qs(parts.query).get("labelSelector", [])
        )
        answer = self.server.answers.get(parts.path + (f"?{selector}" if selector else ""), 404)
        status, document = (answer, {"kind": "Status"}) if isinstance(answer, int) else (200, answer)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def answers(s3: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The recorded answers, to be changed by a test; KUBECONFIG leads to a server that gives them."""
    Store(s3).make_bucket("streetvision")
    changed: dict[str, Any] = copy.deepcopy(RECORDED)
    secret = changed[f"{NAMESPACE}/secrets/streetvision-s3"]
    secret["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in s3.to_environment().items()}
    with _Api(changed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        user = {"name": "u", "user": {}}
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        file = tmp_path / "kubeconfig"
        file.write_text(
            yaml.safe_dump({"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"})
        )
        monkeypatch.setenv("KUBECONFIG", str(file))
        yield changed
        server.shutdown()
        thread.join()


def _diagnose(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, str], str]:
    """Exit code, the failing checks with found and fix, and everything printed."""
    code = 0
    try:
        main(["doctor", *options])
    except SystemExit as error:
        code = int(error.code or 0)
    out = capsys.readouterr().out
    lines = out.splitlines()
    failing = {
        line[9:33].strip(): f"{line[33:]} {lines[index + 1].strip()}"
        for index, line in enumerate(lines)
        if line.startswith("MISSING")
    }
    return code, failing, out


def test_the_recorded_answers_are_objects_of_kubernetes() -> None:
    version = kubernetes_validate.latest_version()
    for answer in RECORDED.values():
        for item in answer.get("items", [answer]):
            kubernetes_validate.validate(item, version, strict=True)


def test_a_ready_cluster_passes_every_check(
    answers: dict[str, Any], s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    code, failing, out = _diagnose(capsys)
    assert (code, failing) == (0, {})
    assert out.count("ok     ") == 7
    assert "gpu-1: 1 free, gpu-2: 2 free" in out
    assert "bucket 'streetvision', conditional writes honoured" in out
    assert s3.access_key not in out
    assert s3.secret_key not in out


def _without(path: str) -> Any:
    return lambda answers: answers.pop(path)


def _busy(answers: dict[str, Any]) -> None:
    answers["/api/v1/pods?spec.nodeName=gpu-2"] = answers["/api/v1/pods?spec.nodeName=gpu-1"]


def _old_kfp(answers: dict[str, Any]) -> None:
    deployment = answers["/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline"]
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "ghcr.io/kubeflow/kfp-api-server:2.5.0"


def _wrong_reference(answers: dict[str, Any]) -> None:
    data = answers[f"{NAMESPACE}/configmaps/kfp-launcher"]["data"]
    data["providers"] = data["providers"].replace("STREETVISION_S3_ACCESS_KEY", "accesskey")


def _half_a_secret(answers: dict[str, Any]) -> None:
    answers[f"{NAMESPACE}/secrets/streetvision-s3"]["data"].pop("STREETVISION_S3_SECRET_KEY")


def _wrong_key(answers: dict[str, Any]) -> None:
    data = answers[f"{NAMESPACE}/secrets/streetvision-s3"]["data"]
    data["STREETVISION_S3_SECRET_KEY"] = base64.b64encode(b"planted-wrong-key").decode()


def _forbidden(answers: dict[str, Any]) -> None:
    answers["/api/v1/nodes?nvidia.com/gpu.product=NVIDIA-RTX-A6000"] = 403


@pytest.mark.parametrize(
    ("harm", "check", "says"),
    [
        (_without(NAMESPACE), "namespace", "streetvision is not there -> kubectl apply -k"),
        (_without(f"{NAMESPACE}/serviceaccounts/streetvision-runner"), "service account", "-> kubectl apply"),
        (_without(f"{NAMESPACE}/secrets/streetvision-s3"), "secret", "streetvision-s3 is not there"),
        (_half_a_secret, "secret", "has no STREETVISION_S3_SECRET_KEY -> complete s3.env"),
        (_without(f"{NAMESPACE}/configmaps/kfp-launcher"), "launcher configuration", "kfp-launcher is not there"),
        (_wrong_reference, "launcher configuration", "-> name streetvision-s3 and its keys there"),
        (_without("/api/v1/nodes?nvidia.com/gpu.product=NVIDIA-RTX-A6000"), "nodes and GPUs", "HTTP 404"),
        (_forbidden, "nodes and GPUs", "may not look -> ask for read access"),
        (_busy, "nodes and GPUs", "gpu-1: 1 free, gpu-2: 1 free -> a run waits until a node has 2 free"),
        (_wrong_key, "object store", "SignatureDoesNotMatch"),
        (_old_kfp, "KFP API", "2.5 -> upgrade to 2.16"),
        (
            _without("/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline"),
            "KFP API",
            "-> install Kubeflow Pipelines",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_fix(
    answers: dict[str, Any], capsys: pytest.CaptureFixture[str], harm: Any, check: str, says: str
) -> None:
    harm(answers)
    code, failing, out = _diagnose(capsys)
    assert code == 1
    assert says in failing[check]
    assert "planted" not in out


def test_no_node_with_the_label(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answers["/api/v1/nodes?nvidia.com/gpu.product=NVIDIA-RTX-A6000"]["items"] = []
    assert "no node has nvidia.com/gpu.product=NVIDIA-RTX-A6000" in _diagnose(capsys)[1]["nodes and GPUs"]
    assert "nodes and GPUs" not in _diagnose(capsys, "--profile", "cpu")[1]


def test_a_forwarded_port_replaces_the_secrets_endpoint(
    answers: dict[str, Any], s3: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    data = answers[f"{NAMESPACE}/secrets/streetvision-s3"]["data"]
    data["STREETVISION_S3_ENDPOINT"] = base64.b64encode(b"127.0.0.1:9").decode()
    assert "object store" not in _diagnose(capsys, "--store-endpoint", s3.endpoint)[1]
