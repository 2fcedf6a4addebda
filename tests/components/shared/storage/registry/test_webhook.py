"""The signed request: the published example of Standard Webhooks, and a real HTTP server."""

import base64
import socket

import pytest

from components.shared.contracts.errors import ConfigError
from components.shared.storage.registry.webhook import check_url, key_of, post, signature
from tests.components.shared.storage.registry.receiver import receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = key_of(SECRET)


def test_the_signature_is_that_of_the_published_example() -> None:
    """standard-webhooks/standard-webhooks, the test of every library there."""
    found = signature(KEY, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_key_is_base64_behind_its_prefix_or_the_text_itself() -> None:
    assert base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") == KEY
    assert key_of("a secret of 20 bytes") == b"a secret of 20 bytes"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", "needs STREETVISION_WEBHOOK_SECRET"),
        ("planted", "at least 16 bytes"),
        ("whsec_cGxhbnRlZA==", "at least 16 bytes"),
        ("whsec_planted!planted", "no Base64"),
    ],
)
def test_a_secret_that_cannot_sign_is_refused_and_not_shown(secret: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        key_of(secret)
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["hook", "ftp://host/x", "http://", "https://user:planted@host/x", "http://h/x y"]
)
def test_another_address_is_refused_without_its_credential(url: str) -> None:
    with pytest.raises(ConfigError, match="on_promotion") as raised:
        check_url(url)
    assert "planted" not in str(raised.value)


def test_addresses_of_receivers_are_accepted() -> None:
    for url in ("https://example.com", "http://hooks.team.svc:8080/promoted?team=a"):
        check_url(url)


def test_the_request_is_sent_again_with_the_same_id_until_it_is_accepted() -> None:
    with receiving() as receiver:
        receiver.statuses = [503, 429, 204]
        assert post(receiver.url + "/hook", KEY, "id-1", 7, b"{}", backoff_seconds=0) == ""
    assert len(receiver.requests) == 3
    for request in receiver.requests:
        assert (request.method, request.path, request.body) == ("POST", "/hook", b"{}")
        assert request.headers["content-type"] == "application/json"
        assert request.headers["webhook-id"] == "id-1"
        assert request.headers["webhook-timestamp"] == "7"
        assert request.headers["webhook-signature"] == signature(KEY, "id-1", 7, b"{}")


@pytest.mark.parametrize(("status", "n_requests"), [(500, 6), (410, 1), (307, 1)])
def test_a_refusal_is_said_and_no_redirect_is_followed(status: int, n_requests: int) -> None:
    with receiving() as receiver:
        receiver.statuses = [status] * 10
        problem = post(receiver.url + "/planted", KEY, "id", 7, b"{}", backoff_seconds=0)
    assert problem == f"{receiver.url.removeprefix('http://')} answered HTTP {status}"
    assert len(receiver.requests) == n_requests


def test_an_unreachable_receiver_is_said_without_the_path() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        problem = post(f"http://{address}/planted", KEY, "id", 7, b"{}", backoff_seconds=0)
    assert problem.startswith(f"{address} cannot be reached (NewConnectionError)")
    assert "planted" not in problem
