"""Stage 2 is asked once for a deferred image, within bounds, and can only answer with a name."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.serving import stage2
from components.shared.serving.stage2 import Stage2, Stage2Answer

NAMES = ("None", "Roadwork")
IMAGE = b"\xff\xd8bytes of an image"


class Service:
    """A service on this machine that gives the next of some answers; status and body."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.received: list[tuple[str, bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.received.append((self.path, body))
                status, answer = service.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/classify?v=1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(stage2, "_BACKOFF_SECONDS", 0.0)
    found = Service()
    yield found
    found.close()


def _says(decision: object) -> tuple[int, bytes]:
    return 200, json.dumps({"decision": decision, "model": "large"}).encode()


def test_a_service_gets_the_bytes_and_answers_a_name(service: Service) -> None:
    service.answers = [_says("Roadwork"), (200, b'"None"')]
    asked = Stage2.of(service.url, NAMES)
    assert asked.answer(IMAGE) == Stage2Answer("Roadwork")
    assert asked.answer(IMAGE) == Stage2Answer("None")
    assert service.received == [("/classify?v=1", IMAGE)] * 2


def test_a_busy_service_is_asked_again_and_not_for_ever(service: Service) -> None:
    service.answers = [(503, b""), (429, b""), _says("None")]
    assert Stage2.of(service.url, NAMES).answer(IMAGE) == Stage2Answer("None")
    assert len(service.received) == 3
    service.answers = [(500, b"")] * 9
    found = Stage2.of(service.url, NAMES).answer(IMAGE)
    assert found.decision is None
    assert found.error.endswith("answered HTTP 500")
    assert len(service.received) == 6


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"", "answered HTTP 404"),
        (302, b"", "answered HTTP 302"),
        (200, b"<html>", "answered no JSON: b'<html>'"),
        (200, b"[" * 50_000, "answered no JSON"),
        (200, b'"' + b"x" * 70_000 + b'"', "answered more than 65536 bytes"),
        (200, b'{"decision": "defer"}', "answered 'defer', expected one of None, Roadwork"),
        (200, b'{"decision": ["None"]}', "answered ['None'], expected one of"),
        (200, b'{"label": "None"}', "answered None, expected one of"),
        (200, b"7", "answered 7, expected one of"),
    ],
)
def test_what_is_no_answer_is_said_and_asked_once(
    service: Service, status: int, body: bytes, reason: str
) -> None:
    service.answers = [(status, body)]
    found = Stage2.of(service.url, NAMES).answer(IMAGE)
    assert found.decision is None
    assert reason in found.error
    assert "\n" not in found.error
    assert len(service.received) == 1


def test_nobody_at_the_address_is_said_without_the_path(service: Service) -> None:
    service.close()
    found = Stage2.of(service.url, NAMES).answer(IMAGE)
    assert found.decision is None
    assert "did not answer (" in found.error
    assert "3 attempts" in found.error
    assert "classify" not in found.error


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module of the user's, and return its name."""

    def write(text: str) -> str:
        name = f"user_stage2_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def test_a_function_of_the_user_answers(module: Callable[[str], str]) -> None:
    name = module(
        "def ask(image):\n    return {'decision': 'Roadwork' if image[:1] == b'R' else 'None'}\n"
        "def fails(image):\n    raise RuntimeError('no GPU\\nhere')\n"
        "def named(image):\n    return 'None'\n"
        "THING = 3\n"
    )
    assert Stage2.of(f"{name}:ask", NAMES).answer(b"R") == Stage2Answer("Roadwork")
    assert Stage2.of(f"{name}:named", NAMES).answer(b"R") == Stage2Answer("None")
    found = Stage2.of(f"{name}:fails", NAMES).answer(b"R")
    assert found.decision is None
    assert found.error.startswith("RuntimeError: no GPU")
    assert "\n" not in found.error
    with pytest.raises(ConfigError, match=f"stage2='{name}:THING' is a int, not a function"):
        Stage2.of(f"{name}:THING", NAMES)
    with pytest.raises(ConfigError, match=f"stage2='{name}:none': .*has no attribute 'none'"):
        Stage2.of(f"{name}:none", NAMES)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module_of_mine:ask", "stage2='no_such_module_of_mine:ask': No module named"),
        ("ftp://host/model", "must be an http.s. URL, or module:function"),
        ("model.py", "must be an http.s. URL, or module:function"),
        ("https://", "must be http://host/path or https://..."),
        ("https://user:secret@host/x", "carries a credential; use a function instead"),
    ],
)
def test_a_target_that_is_none_is_refused(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Stage2.of(target, NAMES)
    assert "secret" not in str(caught.value)
