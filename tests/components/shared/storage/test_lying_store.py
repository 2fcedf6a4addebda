"""What no object store answers is an error of this project, in time and in bounded memory.

The server of `tests/lying_store.py` stands for a proxy, a login page, an attacker, a broken store.
"""

import gzip
import hashlib
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.contracts.errors import StreetVisionError
from components.shared.storage import Store, StoreSettings
from components.shared.storage.client import PART_BYTES
from components.shared.storage.errors import (
    DigestMismatchError,
    StoreConflictError,
    StoreRefusedError,
    StoreUnavailableError,
)
from tests.lying_store import Answer, Call, lying_store

DEADLINE_SECONDS = 1.5  # instead of 60
LOGIN = b"<html><body>login</body></html>"
DOCTYPE = b"<!DOCTYPE html><html><body>login</body></html>"
CHECKSUM = hashlib.sha256(b"abc").hexdigest()


def _store(endpoint: str, deadline_seconds: float = DEADLINE_SECONDS) -> Store:
    plain = StoreSettings(endpoint=endpoint, access_key="AK", secret_key="planted1", secure=False)
    return Store(plain, deadline_seconds=deadline_seconds)


def _range(
    call: Call,
    body: bytes,
    described: str = "bytes 0-2/3",
    status: int = 206,
    etag: str = '"a"',
    **more: str,
) -> None:
    call.reply(status, body, Content_Range=described, ETag=etag, **more)


def _two_versions(call: Call) -> None:
    letter = b"B" if call.offset else b"A"
    last = call.offset + PART_BYTES - 1
    _range(
        call,
        letter * PART_BYTES,
        f"bytes {call.offset}-{last}/{2 * PART_BYTES}",
        etag='"b"' if call.offset else '"a"',
    )


def _growing(call: Call) -> None:
    total = 2 * PART_BYTES + call.offset
    last = call.offset + PART_BYTES - 1
    _range(call, bytes(PART_BYTES), f"bytes {call.offset}-{last}/{total}")


READ_ANSWERS: dict[str, tuple[Answer, type[StreetVisionError], str]] = {
    "empty_range": (
        lambda call: _range(call, b"", "bytes 0-0/100"),
        StoreRefusedError,
        "sends 0 bytes as range 'bytes 0-0/100', asked for those from 0 on",
    ),
    "short_range": (
        lambda call: _range(call, b"abc", "bytes 0-2/100"),
        StoreRefusedError,
        "sends 3 bytes",
    ),
    "huge_total_in_small_pieces": (
        lambda call: _range(call, b"x" * 1000, f"bytes 0-999/{10**18 - 1}"),
        StoreRefusedError,
        "sends 1000 bytes",
    ),
    "longer_than_its_range": (
        lambda call: _range(call, b"abcdefghij"),
        StoreRefusedError,
        "sends 10 bytes",
    ),
    "range_of_another_place": (
        lambda call: _range(call, bytes(PART_BYTES), f"bytes 0-{PART_BYTES - 1}/{2 * PART_BYTES}"),
        StoreRefusedError,
        f"asked for those from {PART_BYTES} on",
    ),
    "two_versions": (_two_versions, StoreConflictError, "it changed meanwhile"),
    "growing": (_growing, StoreConflictError, "it changed meanwhile"),
    "range_in_words": (
        lambda call: _range(call, b"x", "garbage"),
        StoreRefusedError,
        "range 'garbage'",
    ),
    "no_range": (
        lambda call: call.reply(206, b"x", ETag='"a"'),
        StoreRefusedError,
        "range ''",
    ),
    "no_etag": (
        lambda call: call.reply(206, b"abc", Content_Range="bytes 0-2/3"),
        StoreRefusedError,
        "without an ETag",
    ),
    "login_page": (
        lambda call: call.reply(200, LOGIN, ETag='"a"', Content_Type="text/html"),
        StoreRefusedError,
        r"ignores the Range header \(HTTP 200, text/html\).*login",
    ),
    "login_page_as_an_error": (
        lambda call: call.reply(403, DOCTYPE, Content_Type="text/html"),
        StoreRefusedError,
        "HTTP 403 with a page: not S3's",
    ),
    "redirect": (
        lambda call: call.reply(302, Location="http://127.0.0.1:9/evil"),
        StoreRefusedError,
        "not S3's",
    ),
    "compressed": (
        lambda call: _range(call, gzip.compress(b"abc"), "bytes 0-22/23", Content_Encoding="gzip"),
        StoreRefusedError,
        "Content-Encoding 'gzip'",
    ),
    "changed_bytes": (
        lambda call: _range(call, b"abd", x_amz_meta_sha256=CHECKSUM),
        DigestMismatchError,
        "sha256 is",
    ),
    "cut": (
        lambda call: _range(call, b"abc", "bytes 0-9/10", Content_Length="10"),
        StoreUnavailableError,
        r"1\.5 s without success",
    ),
    "endless_header": (
        lambda call: call.drip(b"x", 0.1, headers=True),
        StoreUnavailableError,
        r"1\.5 s without success",
    ),
    "dripping_body": (
        lambda call: call.drip(b"x", 0.1),
        StoreUnavailableError,
        r"1\.5 s without success",
    ),
    "endless_body": (
        lambda call: call.drip(bytes(1 << 20), 0),
        StoreRefusedError,
        "sends more than the 8 MiB",
    ),
    "bad_gateway": (
        lambda call: call.reply(502, DOCTYPE, Content_Type="text/html"),
        StoreUnavailableError,
        "HTTP 502",
    ),
    "bomb_as_an_error": (
        lambda call: call.reply(404, _bomb("Error"), Content_Type="application/xml"),
        StoreRefusedError,
        "HTTP 404 with a page",
    ),
}


def _bomb(root: str) -> bytes:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    return (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{entities}]>'
        f"<{root}><Code>NoSuchKey</Code><Name>&l11;</Name></{root}>"
    ).encode()


@pytest.mark.parametrize("name", READ_ANSWERS)
def test_a_wrong_answer_to_a_read_is_a_typed_error_in_time(name: str, tmp_path: Path) -> None:
    answer, kind, says = READ_ANSWERS[name]
    with lying_store(answer) as server:
        store = _store(server.endpoint)
        for call in (
            lambda: store.read("bucket", "k"),
            lambda: store.get("bucket", "k", tmp_path / "k"),
        ):
            started = time.monotonic()
            with pytest.raises(kind, match=says) as caught:
                call()
            assert time.monotonic() - started < DEADLINE_SECONDS + 1
            assert all(word in str(caught.value) for word in (server.endpoint, "bucket", "'k'"))
    assert list(tmp_path.iterdir()) == []


def test_a_good_answer_is_read(tmp_path: Path) -> None:
    """The lies above differ from this answer in one thing each."""
    with lying_store(lambda call: _range(call, b"abc", x_amz_meta_sha256=CHECKSUM)) as server:
        store = _store(server.endpoint)
        assert store.read_with_etag("bucket", "k") == (b"abc", "a")
        assert store.read("bucket", "k", etag="a") == b"abc"
        with pytest.raises(StoreConflictError, match="changed since it was listed"):
            store.read("bucket", "k", etag="other")
        with pytest.raises(StoreRefusedError, match="has 3 bytes, more than the 2 accepted"):
            store.read("bucket", "k", most_bytes=2)


def test_an_endless_body_takes_bounded_memory() -> None:
    with lying_store(lambda call: call.drip(bytes(1 << 20), 0)) as server:
        store = _store(server.endpoint)
        tracemalloc.start()
        with pytest.raises(StoreRefusedError):
            store.read("bucket", "k")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 6 * PART_BYTES  # the server of the same process has its share


def _page(*entries: str, more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>bucket</Name>{more}{''.join(entries)}</ListBucketResult>"
    ).encode()


def _entry(key: str, etag: str = '<ETag>"e"</ETag>', size: str = "3") -> str:
    time_ = "<LastModified>2024-01-01T00:00:00.000Z</LastModified>"
    return f"<Contents><Key>{key}</Key><Size>{size}</Size>{etag}{time_}</Contents>"


TRUNCATED = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
LISTINGS: dict[str, tuple[bytes, str]] = {
    "the_same_page_for_ever": (_page(_entry("data/a"), more=TRUNCATED), "nothing new|had nothing"),
    "empty_pages_for_ever": (_page(more=TRUNCATED), "8 answers one after the other"),
    "no_etag": (_page(_entry("data/a", etag="")), "without an ETag"),
    "no_size": (_page(_entry("data/a").replace("<Size>3</Size>", "")), "of size None"),
    "size_in_words": (_page(_entry("data/a", size="x")), "invalid literal"),
    "negative_size": (_page(_entry("data/a", size="-1")), "of size -1"),
    "another_prefix": (_page(_entry("elsewhere/a")), "'elsewhere/a'.*not asked for"),
    "no_xml": (b"<notxml", "not S3's answer"),
    "cut_xml": (_page(_entry("data/a"))[:-30], "no XML document"),
    "no_text": (_page(_entry("data/a")).replace(b"data", b"d\xff\xfea"), "not S3's|codec"),
    "login_page": (LOGIN, "not S3's answer.*login"),
    "login_page_with_doctype": (DOCTYPE, "with a page: not S3's"),
    "bomb": (_bomb("ListBucketResult"), "with a page: not S3's"),
    "empty": (b"", "not S3's answer"),
    "too_long": (_page(_entry("data/" + "a" * PART_BYTES)), "more than the 8 MiB"),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_wrong_listing_is_a_typed_error_in_time(name: str) -> None:
    body, says = LISTINGS[name]
    with lying_store(lambda call: call.reply(200, body, Content_Type="text/html")) as server:
        started = time.monotonic()
        with pytest.raises(StoreRefusedError, match=says):
            _store(server.endpoint).list("bucket", "data")
        assert time.monotonic() - started < DEADLINE_SECONDS + 1
        assert server.n_calls <= 9


def test_a_listing_of_many_pages_is_read_to_its_end() -> None:
    def answer(call: Call) -> None:
        query = parse_qs(urlsplit(call.path).query)
        number = int(query.get("continuation-token", ["0"])[0])
        more = TRUNCATED.replace(">t<", f">{number + 1}<") if number < 40 else ""
        call.reply(200, _page(_entry(f"data/{number}"), _entry("data/same"), more=more))

    with lying_store(answer) as server:
        keys = {item.key for item in _store(server.endpoint).list("bucket", "data")}
    assert keys == {"data/same", *(f"data/{number}" for number in range(41))}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_listing_is_a_listing_or_a_typed_error(data: st.DataObject) -> None:
    page = bytearray(_page(_entry("data/a"), _entry("data/b")))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(page) - 1))
        page[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=8))

    with lying_store(lambda call: call.reply(200, bytes(page))) as server:
        try:
            found = _store(server.endpoint).list("bucket", "data")
        except StreetVisionError:
            return
    assert all(item.key.startswith("data") and item.size >= 0 and item.etag for item in found)


def _writes(store: Store, tmp_path: Path) -> dict[str, Callable[[], object]]:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"abc")
    large.write_bytes(bytes(PART_BYTES + 1))
    return {
        "put": lambda: store.put("bucket", "k", small),
        "put_in_parts": lambda: store.put("bucket", "k", large),
        "create": lambda: store.put_if_absent("bucket", "k", b"abc"),
        "swap": lambda: store.compare_and_swap("bucket", "k", b"abc", "a"),
        "delete": lambda: store.delete("bucket", "k"),
    }


@pytest.mark.parametrize("write", ["put", "put_in_parts", "create", "swap", "delete"])
@pytest.mark.parametrize(
    "answer",
    [
        lambda call: call.reply(200, LOGIN, ETag='"a"', Content_Type="text/html"),
        lambda call: call.reply(200, DOCTYPE, ETag='"a"'),
    ],
    ids=["login", "doctype"],
)
def test_a_login_page_is_no_confirmation_of_a_write(
    write: str, answer: Answer, tmp_path: Path
) -> None:
    with (
        lying_store(answer) as server,
        pytest.raises(StoreRefusedError, match="not S3's"),
    ):
        _writes(_store(server.endpoint), tmp_path)[write]()


@pytest.mark.parametrize("write", ["put", "create", "swap"])
def test_a_write_without_an_etag_is_no_write(write: str, tmp_path: Path) -> None:
    with (
        lying_store(lambda call: call.reply(200)) as server,
        pytest.raises(StoreRefusedError, match="without an ETag"),
    ):
        _writes(_store(server.endpoint), tmp_path)[write]()


def test_an_upload_in_parts_that_fails_at_its_end_is_no_object(tmp_path: Path) -> None:
    """S3 may answer 200 to the last request of an upload and report an error in its body."""

    def answer(call: Call) -> None:
        begin = (
            b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        )
        failed = b"<Error><Code>InternalError</Code></Error>"
        if call.command == "POST":
            call.reply(200, begin if "uploads" in call.path else failed)
        else:
            call.reply(204 if call.command == "DELETE" else 200, ETag='"a"')

    with (
        lying_store(answer) as server,
        pytest.raises(StoreUnavailableError, match="HTTP 200 with the error InternalError"),
    ):
        _writes(_store(server.endpoint), tmp_path)["put_in_parts"]()
