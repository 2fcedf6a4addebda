"""An HTTP server that answers for the Kubernetes API.

It serves objects by path, deletion of pods, and processes in pods.

A process is started by a web socket as in the API's `pods/exec` (subprotocol v4.channel.k8s.io: the
first byte of a message is its channel); what it prints is the test's. Not checked against a real
API: the order of its messages.
"""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_VERSION = [
    "major",
    "minor",
    "gitVersion",
    "gitCommit",
    "gitTreeState",
    "buildDate",
    "goVersion",
    "compiler",
    "platform",
]
_STDOUT, _ERROR = b"\x01", b"\x03"


class KubernetesServer(ThreadingHTTPServer):
    """answers: object, text or status by path; started: arguments of the processes by pod.

    Printed: what they print.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Any] = {}
        self.requests: list[str] = []
        self.started: list[tuple[str, list[str]]] = []
        self.printed = b"17\n"

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def hold(self, namespace: str, kind: str, name: str, **content: Any) -> None:
        """Hold an object; kind: as in its path, such as configmaps."""
        metadata = {"name": name, "namespace": namespace}
        self.answers[f"/api/v1/namespaces/{namespace}/{kind}/{name}"] = {
            "metadata": metadata,
            **content,
        }

    def hold_ready_namespace(
        self, namespace: str, bucket: str, secret: str, keys: dict[str, str]
    ) -> None:
        """Hold what the overlays and KFP leave in the namespace of runs.

        Bucket: that of data and pipeline root.
        """
        self.answers[f"/api/v1/namespaces/{namespace}"] = {"metadata": {"name": namespace}}
        self.answers["/version/"] = dict.fromkeys(_VERSION, "")
        self.hold(namespace, "serviceaccounts", "streetvision-runner")
        self.hold(namespace, "services", "ml-pipeline", spec={})
        self.hold(
            namespace,
            "secrets",
            secret,
            data={name: _encoded(value) for name, value in keys.items()},
        )
        root = f"minio://{bucket}/v2/artifacts"
        self.hold(namespace, "configmaps", "kfp-launcher", data={"defaultPipelineRoot": root})
        self.hold(
            namespace,
            "configmaps",
            "streetvision-store",
            data={"STREETVISION_S3_ENDPOINT": "seaweedfs:9000"},
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KubernetesServer

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        self.server.requests.append(f"{self.command} {parts.path}")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        selector = "".join(query.get("fieldSelector", []) + query.get("labelSelector", []))
        path = parts.path + (f"?{selector}" if selector else "")
        answer = self.server.answers.get(path, self.server.answers.get(parts.path, 404))
        if parts.path.endswith("/exec") and not isinstance(answer, int):
            self._start(parts.path.split("/")[-2], query["command"])
        elif isinstance(answer, int):
            self._answer(
                answer, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": answer}
            )
        else:
            self._answer(200, answer)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def _answer(self, status: int, answer: Any) -> None:
        body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "text/plain" if isinstance(answer, str) else "application/json"
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _start(self, pod: str, command: list[str]) -> None:
        """Print `printed` on the process's standard output, tell that it succeeded, close."""
        self.server.started.append((pod, command))
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header(
            "Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + _ACCEPT).digest()).decode()
        )
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        for message in (
            _STDOUT + self.server.printed,
            _ERROR + b'{"metadata":{},"status":"Success"}',
        ):
            self.wfile.write(
                b"\x82" + bytes([len(message)]) + message
            )  # one short, final, binary frame
        self.wfile.write(b"\x88\x02\x03\xe8")  # close, status 1000
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def write_kubeconfig(file: Path, host: str, namespace: str = "") -> None:
    """A configuration of kubectl that leads to `host`."""
    context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
    document = {
        "clusters": [{"name": "c", "cluster": {"server": host}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": context}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(document))


@contextlib.contextmanager
def kubernetes_server() -> Iterator[KubernetesServer]:
    """Run one."""
    with KubernetesServer() as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
