"""A certificate of one run, without which the embedded store's inner ports answer nothing.

SeaweedFS is several servers that talk to each other over ports of their own, and by default those
answer everybody. Here, both ends of each such connection must show this certificate (mutual TLS);
its key is in memory and in a folder that only this user can read, until the server ends.
"""

import datetime
import ipaddress
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_VALID = datetime.timedelta(days=365)
_CLOCK_MAY_DIFFER = datetime.timedelta(days=1)
_HTTP = ("master", "volume", "filer", "admin")
_GRPC = (*_HTTP, "s3", "worker", "client")


def write_security(folder: Path, host: str) -> None:
    """Make a key and its certificate for `host`, and the server's security.toml that names them."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(pem)

    certificate = _certificate(key, host).public_bytes(serialization.Encoding.PEM)
    (folder / "cert.pem").write_bytes(certificate)
    (folder / "security.toml").write_text(_security(folder.resolve()), encoding="utf-8")


def _certificate(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    """Return a certificate that is its own authority: nothing else is signed by the key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "embedded store")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    now = datetime.datetime.now(datetime.UTC)

    return (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_MAY_DIFFER)
        .not_valid_after(now + _VALID)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _security(folder: Path) -> str:
    """Return the text of security.toml, whose sections are those of `weed scaffold`."""
    # A JSON text without lone surrogates is a basic string of TOML.
    certificate, key = (json.dumps(str(folder / name)) for name in ("cert.pem", "key.pem"))
    pair = f"cert = {certificate}\nkey = {key}\n"
    lines = [f"[grpc]\nca = {certificate}\n"]
    lines += [f"[grpc.{name}]\n{pair}" for name in _GRPC]
    lines += [f"[https.client]\nenabled = true\n{pair}ca = {certificate}\n"]
    lines += [f"[https.{name}]\n{pair}ca = {certificate}\n" for name in _HTTP]

    return "\n".join(lines)
