"""Keys and certificates of tests, made anew: no private key lies in the repository."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
PrivateKey = ec.EllipticCurvePrivateKey


def private_key(file: Path, *, password: bytes | None = None) -> PrivateKey:
    """Write a new private key on P-256 and return it."""
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return key


def public_pem(key: PrivateKey) -> bytes:
    """Return the PEM text of its public half."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Write `name`.pem and `name`.pub below a folder, and return both paths."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    public.write_bytes(public_pem(private_key(private)))
    return private, public


def certificate(
    subject: str,
    key: PrivateKey,
    issuer: tuple[x509.Certificate, PrivateKey] | None = None,
    *,
    valid: tuple[datetime, datetime] = (NOW - DAY, NOW + DAY),
    usage: x509.ObjectIdentifier | None = x509.oid.ExtendedKeyUsageOID.CODE_SIGNING,
) -> x509.Certificate:
    """Return a certificate; without an issuer that of an authority, signed by its own key."""
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, subject)])
    is_authority = issuer is None
    by, by_key = (name, key) if issuer is None else (issuer[0].subject, issuer[1])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_authority,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if usage is not None and not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(by_key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    """Return the PEM text of certificates."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


class Authority:
    """An authority that issues certificates for signing keys; its own is in `trusted`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._key = folder, private_key(folder / f"{name}.key")
        self._certificate = certificate(name, self._key, valid=(NOW - 100 * DAY, NOW + 100 * DAY))
        self.trusted = folder / f"{name}.pem"
        self.trusted.write_bytes(pem(self._certificate))

    def issue(
        self,
        name: str,
        *,
        valid: tuple[datetime, datetime] = (NOW - DAY, NOW + DAY),
        usage: x509.ObjectIdentifier | None = x509.oid.ExtendedKeyUsageOID.CODE_SIGNING,
    ) -> Path:
        """Write a new private key with its certificate behind it, and return the file."""
        file = self._folder / f"{name}.pem"
        key = private_key(file)
        issuer = (self._certificate, self._key)
        issued = certificate(name, key, issuer, valid=valid, usage=usage)
        file.write_bytes(file.read_bytes() + pem(issued))
        return file
