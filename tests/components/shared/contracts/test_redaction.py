"""Credentials are found in any text by their value or their form, and nothing else is hidden."""

import io
import subprocess
import sys
import time
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from components.shared.contracts.config import Config, option
from components.shared.contracts.errors import ConfigError, DataError, one_line
from components.shared.contracts.listing import shown
from components.shared.contracts.redaction import (
    RedactingStream,
    carries_credential,
    conceal,
    redacted,
)

PLANTED = "S3CRETPW"
HUB_TOKEN = "hf_" + PLANTED * 4
JSON_WEB_TOKEN = f"eyJ{PLANTED}00.{PLANTED}.{PLANTED}"

CERTAIN = [
    f"s3://AKIAUSER:{PLANTED}@bucket/photos",
    f"s3://AKIAUSER:{PLANTED[:3]}/{PLANTED[3:]}@bucket/photos",
    f"s3://AKIAUSER:{PLANTED[:3]}\n    {PLANTED[3:]}@bucket/photos",
    f"http://admin:{PLANTED}@127.0.0.1:1/pipeline cannot be reached",
    f"https://{PLANTED}@host/x",
    f"see https://login?next={quote(f'https://user:{PLANTED}@host/x', safe='')}&b=1",
    f"PosixPath('s3:/AKIAUSER:{PLANTED}@bucket')",
    f"https://host/k?X-Amz-Signature={PLANTED}&X-Amz-Expires=900",
    f"https://host/k?X-Amz-Security-Token={PLANTED}%2F{PLANTED}",
    f"next=https%3A%2F%2Fhost%3FX-Amz-Credential%3D{PLANTED}%26b",
    f"https://host/k?X-Amz-Signature={PLANTED * 2}\n{PLANTED}",
    f"X-Amz-Security-Token: {PLANTED}",
    f"cannot log in with {HUB_TOKEN}",
    f"cannot log in with {HUB_TOKEN[:20]}\n  {HUB_TOKEN[20:]}",
    f"denied for {JSON_WEB_TOKEN}",
]
LIKELY = [
    f"Authorization: Bearer {PLANTED}",
    f"{{'authorization': b'Basic {PLANTED}'}}",
    f"AWS4-HMAC-SHA256 SignedHeaders=host, Signature={PLANTED}",
    f"Invalid header value b'Bearer {PLANTED}1'",
    f"STREETVISION_KFP_COOKIE=authservice_session={PLANTED}",
    f"STREETVISION_S3_SECRET_KEY={PLANTED}",
    f"https://host/x?access_token={PLANTED}&b=1",
    f"password='{PLANTED}'",
    f"https://account:{PLANTED} is no address",
]
HARMLESS = [
    "http://localhost:8080/pipeline cannot be reached (refused)",
    "store:9000 bucket 'photos' key 'a@b/c.jpg'; s3://photos/a@b/c.jpg",
    "http://[::1]:9000, and https://host:443: it does not exist",
    "export STREETVISION_KFP_TOKEN=$(kubectl create token default-editor -n streetvision)",
    "a bearer token (STREETVISION_KFP_TOKEN), or a cookie (authservice_session=...)",
    "store_secret='streetvision-s3' is not in the namespace",
    "n_tokens=196; 2 patch tokens: 4, hf_hub_download is not installed",
    "set STREETVISION_S3_ACCESS_KEY and STREETVISION_S3_SECRET_KEY",
    "train_fraction + calib_fraction = 1.1, must be 1",
]


@pytest.mark.parametrize("text", [*CERTAIN, *LIKELY])
def test_a_credential_is_found_by_its_form(text: str) -> None:
    for shape in (text, f"before {text!r} after", f'{{"message": "{text}"}}'):
        found = redacted(shape)
        assert not any(part in found for part in (PLANTED, PLANTED[3:])), found
        assert "***" in found


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text
    assert not carries_credential(text)


@pytest.mark.parametrize("text", CERTAIN)
def test_redaction_of_redacted_text_changes_nothing(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "shape",
    [
        lambda secret: secret,
        lambda secret: f"{secret[:9]}\n  {secret[9:]}",
        lambda secret: "\r\n".join(secret),
        lambda secret: repr(f"{secret[:9]}\n{secret[9:]}"),
        quote,
        lambda secret: quote(secret, safe="").lower().replace("secret", "SECRET"),
        lambda secret: repr(secret.encode()),
    ],
)
def test_a_known_value_is_found_however_it_is_written(shape: object) -> None:
    secret = "SECRET/+of=SECRET%SECRET"
    conceal(secret)

    found = redacted(f"before {shape(secret)} after")  # type: ignore[operator]

    assert found in ("before *** after", "before '***' after", "before b'***' after")


def test_values_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STREETVISION_S3_SESSION_TOKEN", "STREETVISION_KFP_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, f"of-{name}\nwrapped")
        assert redacted(f"x of-{name}wrapped y") == "x *** y"
        monkeypatch.delenv(name)
        assert f"of-{name}" in redacted(f"x of-{name}wrapped y")


def test_a_short_word_is_no_secret() -> None:
    conceal("store", "", None)
    assert redacted("the store is full") == "the store is full"


def test_messages_are_redacted_before_they_are_joined_and_cut() -> None:
    wrapped = f"s3://key:{PLANTED[:4]}\n{PLANTED[4:]}@bucket is wrong"
    assert one_line(DataError(wrapped)) == "s3://***@bucket is wrong"

    for n in range(0, 400, 7):
        uri = f"{'x' * n} s3://AKIAUSER:{PLANTED * 8}@bucket/photos {'y' * 400}"
        assert PLANTED[:5] not in shown(uri)
        assert PLANTED[:5] not in shown([{"data": uri}])
    for n in range(1900, 2100, 7):
        message = f"{'x' * n} s3://AKIAUSER:{PLANTED * 8}@bucket {'y' * 3000}"
        assert PLANTED[:5] not in one_line(DataError(message))


@dataclass(frozen=True, kw_only=True)
class Example(Config):
    """Options of a step that exists here only."""

    data: str = option("", "Data.")
    more: dict[str, str] = option({}, "More.")


def test_a_configuration_refuses_a_credential_in_any_option() -> None:
    for values in (
        {"data": f"s3://AKIAUSER:{PLANTED}@bucket/photos"},
        {"more": {"x": f"https://host/?X-Amz-Signature={PLANTED}"}},
        {"more": {HUB_TOKEN: "x"}},
    ):
        with pytest.raises(ConfigError, match=r"carries a credential.*STREETVISION_S3_SECRET_KEY"):
            Example.from_mapping(values)
        with pytest.raises(ConfigError) as caught:
            Example.from_mapping(values)
        assert PLANTED not in str(caught.value)

    assert Example.from_mapping({"data": "s3://bucket/a@b?c"})


def test_a_stream_is_redacted_and_otherwise_as_it_was() -> None:
    inner = io.StringIO()
    stream = RedactingStream(inner)

    print(f"x s3://k:{PLANTED}@b y", file=stream)
    stream.writelines([f"password={PLANTED}\n"])

    assert inner.getvalue() == "x s3://***@b y\npassword=***\n"
    assert stream.isatty() is False
    assert stream.write("four") == 4


def test_a_traceback_is_redacted() -> None:
    program = (
        "from components.shared.contracts.redaction import redact_output\n"
        "redact_output(); redact_output()\n"
        f"raise ValueError('s3://k:' + {PLANTED[:4]!r} + {PLANTED[4:]!r} + '@bucket')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert finished.stderr.endswith("ValueError: s3://***@bucket\n")


HOSTILE = [
    "://",
    "://a:",
    "://a:b",
    "a_",
    "%3A%2F%2F",
    "hf_a\n",
    "token=",
    "X-Amz-Signature=a\n",
    "eyJ",
    "eyJaaaaaaaaa ",
    "Bearer ",
    "Bearer aaaaaaaaa",
    "authorization:",
    "\n ",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    started = time.process_time()
    redacted(text)
    assert time.process_time() - started < 5  # 0.02 to 0.6 s; quadratic patterns took minutes
