"""A signed HTTP request that tells a receiver of a promotion.

Headers and signature are those of Standard Webhooks (standardwebhooks.com, version 1.0.0), for
which receivers find libraries. Own code for the sender's side, which is one HMAC.
"""

import base64
import binascii
import hashlib
import hmac
import re
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3.exceptions import HTTPError

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.redaction import carries_credential, redacted

_SECONDS = 10.0  # for a connection, and for an answer
_N_RETRIES = 5
_BACKOFF_SECONDS = 0.5  # doubled before each further attempt
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
_PREFIX = "whsec_"
_FEWEST_BYTES = 16
_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s#@\\]*)?(\?[^\s#@\\]*)?")


def check_url(url: str) -> None:
    """Raise ConfigError unless `url` is http(s)://host/path without a credential and a fragment."""
    if carries_credential(url):
        raise ConfigError(
            f"on_promotion={redacted(url)!r} carries a credential; the request is signed by"
            f" {Variable.WEBHOOK_SECRET} instead"
        )
    if not _URL.fullmatch(url):
        raise ConfigError(f"on_promotion={redacted(url)!r} must be http://host/path or https://...")


def key_of(secret: str) -> bytes:
    """Return the key in a secret: the bytes behind whsec_ in Base64, else the text itself.

    Raises:
        ConfigError: it is empty, no Base64, or shorter than 16 bytes. The message does not show it.
    """
    if not secret:
        raise ConfigError(f"on_promotion needs {Variable.WEBHOOK_SECRET}, which signs the request")
    try:
        key = (
            base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
            if secret.startswith(_PREFIX)
            else secret.encode()
        )
    except binascii.Error:
        raise ConfigError(f"{Variable.WEBHOOK_SECRET} is no Base64 behind {_PREFIX}") from None
    if len(key) < _FEWEST_BYTES:
        raise ConfigError(f"{Variable.WEBHOOK_SECRET} must have at least {_FEWEST_BYTES} bytes")
    return key


def signature(key: bytes, message_id: str, seconds: int, body: bytes) -> str:
    """Return the header webhook-signature of a request.

    Args:
        key: the shared secret.
        message_id: the header webhook-id.
        seconds: the header webhook-timestamp, Unix time.
        body: of the request.
    """
    signed = b".".join((message_id.encode(), str(seconds).encode(), body))
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def post(
    url: str,
    key: bytes,
    message_id: str,
    seconds: int,
    body: bytes,
    *,
    backoff_seconds: float = _BACKOFF_SECONDS,
) -> str:
    """Send the request, again where the receiver is unreachable or busy; redirects are refused.

    Every attempt has the same id, so that the receiver can tell a repetition.

    Args:
        url: of the receiver.
        key: the shared secret.
        message_id: identifies what is told.
        seconds: Unix time of the request.
        body: JSON.
        backoff_seconds: pause before the second attempt, doubled before each further one.

    Returns:
        Why it failed, in words without the URL's path; empty where the receiver accepted it.
    """
    host = urlsplit(url).netloc
    retries = urllib3.Retry(
        total=_N_RETRIES,
        status_forcelist=_RETRIED_STATUS,
        allowed_methods=None,
        backoff_factor=backoff_seconds,
        redirect=False,
        raise_on_redirect=False,
        raise_on_status=False,
        respect_retry_after_header=False,  # it may be hours
    )
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature(key, message_id, seconds, body),
    }

    with urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=certifi.where()) as pool:
        try:
            answer = pool.request(
                "POST",
                url,
                body=body,
                headers=headers,
                retries=retries,
                redirect=False,
                timeout=urllib3.Timeout(connect=_SECONDS, read=_SECONDS),
                preload_content=False,  # nobody reads the answer, however long it is
            )
        except (HTTPError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            return f"{host} cannot be reached ({type(reason).__name__}), {_N_RETRIES + 1} attempts"
        answer.close()

    if 200 <= answer.status < 300:
        return ""
    return f"{host} answered HTTP {answer.status}"
