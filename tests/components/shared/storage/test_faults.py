"""Every operation through a network that breaks one call in five, or all of them."""

import dataclasses
import hashlib
import ipaddress
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.shared.storage import Store, StoreSettings
from components.shared.storage.client import PART_BYTES
from components.shared.storage.errors import StoreRefusedError, StoreUnavailableError
from tests.fault_proxy import FAULTS, fault_proxy

N_ROUNDS = 30
DEADLINE_SECONDS = 1.5  # instead of 60


def test_all_operations_complete_with_faults_in_20_percent_of_the_calls(
    s3: StoreSettings, bucket: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    large = tmp_path / "large"
    large.write_bytes(hashlib.shake_128(b"large").digest(2 * PART_BYTES + 777))
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    started = time.monotonic()
    with fault_proxy(s3.endpoint, rate=0.2, seed=1) as proxy:
        store = Store(dataclasses.replace(s3, endpoint=proxy.endpoint), deadline_seconds=20)
        store.put(bucket, "large", large)
        store.get_verified(bucket, "large", tmp_path / "down", digest)
        etag = store.compare_and_swap(bucket, "pointer", b"start", None)
        for number in range(N_ROUNDS):
            small = tmp_path / "small"
            small.write_bytes(b"%d" % number)
            store.put(bucket, f"small/{number:03}", small)
            assert store.read(bucket, f"small/{number:03}") == b"%d" % number
            assert store.put_if_absent(bucket, f"once/{number:03}", b"%d" % number)
            etag = store.compare_and_swap(bucket, "pointer", b"%d" % number, etag)
            assert len(store.list(bucket, "small/")) == number + 1
    figures = {
        **dict(sorted(proxy.counts.items())),
        "faults": proxy.n_faults,
        "failures": 0,
        "seconds": round(time.monotonic() - started, 1),
    }
    record_property("store_faults", figures)
    print("store faults:", figures)
    assert set(FAULTS) <= set(proxy.counts), "every kind of fault was met"
    assert proxy.n_faults / proxy.counts["calls"] == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_always_fails_gives_a_clear_error_before_the_deadline(
    s3: StoreSettings, bucket: str, tmp_path: Path, fault: str
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(PART_BYTES + 1))
    Store(s3).put(bucket, "there", large)
    with fault_proxy(s3.endpoint, rate=1.0, faults=(fault,), stall_seconds=60) as proxy:
        store = Store(
            dataclasses.replace(s3, endpoint=proxy.endpoint), deadline_seconds=DEADLINE_SECONDS
        )
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError) as caught:
            store.read(bucket, "there")
        assert time.monotonic() - started < DEADLINE_SECONDS + 1
    text = str(caught.value)
    assert all(word in text for word in (proxy.endpoint, bucket, "'there'", "1.5 s", "attempt(s)"))
    assert not any(secret in text for secret in (s3.access_key, s3.secret_key, "X-Amz"))
    assert proxy.counts["calls"] >= 2


def test_an_upload_to_a_dead_store_ends_in_time_too(
    s3: StoreSettings, bucket: str, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(2 * PART_BYTES))
    with fault_proxy(s3.endpoint, rate=1.0, faults=("slow_down",)) as proxy:
        store = Store(
            dataclasses.replace(s3, endpoint=proxy.endpoint), deadline_seconds=DEADLINE_SECONDS
        )
        for call in (
            lambda: store.put(bucket, "k", large),
            lambda: store.list(bucket),
            lambda: store.put_if_absent(bucket, "k", b""),
        ):
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="HTTP 503 SlowDown"):
                call()
            assert time.monotonic() - started < DEADLINE_SECONDS + 1


def test_an_unreachable_host_is_named(s3: StoreSettings) -> None:
    nobody = dataclasses.replace(s3, endpoint="127.0.0.1:9")
    with pytest.raises(
        StoreUnavailableError, match=r"127\.0\.0\.1:9 bucket 'images'.*Connection refused"
    ):
        Store(nobody, deadline_seconds=0.5).list("images")


def test_an_answer_that_is_not_s3_is_refused(s3: StoreSettings, bucket: str) -> None:
    with (
        fault_proxy(s3.endpoint, rate=1.0, faults=("html",)) as proxy,
        pytest.raises(StoreRefusedError, match=r"not S3's.*check the endpoint"),
    ):
        Store(dataclasses.replace(s3, endpoint=proxy.endpoint)).list(bucket)


def test_tls_with_a_custom_authority(s3: StoreSettings, bucket: str, tmp_path: Path) -> None:
    ca_file, context = _self_signed(tmp_path)
    with fault_proxy(s3.endpoint, tls=context) as proxy:
        trusted = dataclasses.replace(
            s3, endpoint=proxy.endpoint, secure=True, ca_file=str(ca_file)
        )
        assert Store(trusted).put_if_absent(bucket, "k", b"over TLS")
        assert Store(trusted).read(bucket, "k") == b"over TLS"
        for untrusted, says in (
            (
                dataclasses.replace(trusted, ca_file=None),
                "certificate refused.*STREETVISION_S3_CA_FILE",
            ),
            (dataclasses.replace(trusted, endpoint=s3.endpoint), "STREETVISION_S3_SECURE=false"),
        ):
            with pytest.raises(StoreRefusedError, match=says):
                Store(untrusted, deadline_seconds=5).read(bucket, "k")


def _self_signed(directory: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "ca.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = directory / "key.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context
