"""Signature of a bundle: who made it, which the sums in it cannot say.

Who changes a file can write new sums; a signature needs the key. It lies in `model.sig` beside the
manifest and covers every other file of the bundle, the manifest too. Its format is sigstore's, so
that the command `model_signing` verifies it as well.

model-signing does the cryptography. Added is what it leaves to its callers: a file of several keys
and authorities, so that keys can be replaced; that certificates are valid now, where model-signing
takes the moment at which the certificate began to be; and that they are meant for signing code.
Its import takes a second, so that it is imported only where a key is named.
"""

import base64
import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import SIGNATURE, verify_dir
from components.shared.contracts.documents import as_type, read_bytes, read_json
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError, ConfigError, one_line
from components.shared.contracts.listing import first_of, printable, shown

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from model_signing import hashing

_LARGEST_PEM = 2**20  # bytes; the authorities of all browsers take a fifth of it
# In the text of a list, whose quotes are escaped where the items have both kinds.
_CHANGED = re.compile(r"Hash mismatch for \\*'(.*?)\\*': Expected")
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys and certificates of authorities, one of which must have signed a bundle.

    Attributes:
        file: The PEM file that they are from.
        public_keys: SHA-256 of a public key's PEM text, as signatures name it -> the text.
        authorities: DER of each certificate.
    """

    file: Path
    public_keys: Mapping[str, bytes]
    authorities: tuple[bytes, ...]

    @classmethod
    def of(cls, given: str | Path = "") -> Self | None:
        """Return the keys of a PEM file, or of the environment's; None where none is named.

        Args:
            given: The file that an option names; empty: that of STREETVISION_TRUSTED_KEYS.

        Raises:
            ConfigError: The file is missing, holds neither a public key nor a certificate, or a key
                that signatures of this format cannot be made with; or a private key.
        """
        named = str(given) or os.environ.get(Variable.TRUSTED_KEYS, "")
        return cls.read(Path(named)) if named else None

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return the keys of a PEM file; raises as `of`."""
        from cryptography import x509

        data = read_bytes(file, most_bytes=_LARGEST_PEM, linked=True, error=ConfigError)
        if b"PRIVATE KEY-----" in data:
            raise ConfigError(
                f"{file}: holds a private key; a bundle is verified by public keys, and the private"
                " one belongs to who signs"
            )

        keys = dict(_public_key(block, file) for block in _blocks(data, "PUBLIC KEY"))
        try:
            found = x509.load_pem_x509_certificates(data) if b"CERTIFICATE-----" in data else []
        except ValueError as error:
            raise ConfigError(f"{file}: a certificate in it is damaged") from error
        if not keys and not found:
            raise ConfigError(f"{file}: holds neither a public key nor a certificate in PEM")

        return cls(file, keys, tuple(sorted({_der(certificate) for certificate in found})))

    @property
    def digest(self) -> str:
        """Return the SHA-256 over all keys and authorities, 64 hex digits, whatever their order."""
        digest = hashlib.sha256()
        for part in (*sorted(name.encode() for name in self.public_keys), *self.authorities):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Key:
    """The public key that a signature names; the hint is the SHA-256 of its PEM text."""

    hint: str


@dataclass(frozen=True)
class _Certificate:
    """A certificate of a signature, DER in base64."""

    rawBytes: str  # noqa: N815 - sigstore's name


@dataclass(frozen=True)
class _Chain:
    """The certificates of a signature, the signer's first."""

    certificates: list[_Certificate]


def verify_signature(path: Path, trusted: TrustedKeys) -> str:
    """Return who signed a bundle: the digest of the key, or the subject of the certificate.

    Every file of the bundle is hashed, and must be what was signed.

    Args:
        path: The bundle.
        trusted: Keys and authorities.

    Raises:
        ArtifactError: It is not signed, or by nobody who is trusted, by a certificate that is not
            valid now or not meant for signing code; or a file was changed, added or removed since.
    """
    file = path / SIGNATURE
    if not os.path.lexists(file):
        raise ArtifactError(
            f"{path}: is not signed ({SIGNATURE} is missing), and must be signed by a key of"
            f" {trusted.file}; sign it if it is yours: streetvision sign"
        )

    material = _material(file)
    if "publicKey" in material:
        hint = as_type({"hint": material["publicKey"].get("hint")}, _Key, str(file)).hint
        if hint not in trusted.public_keys:
            raise ArtifactError(
                f"{path}: is signed by the key {shown(hint[:16])}, which is not in {trusted.file};"
                " this is another's bundle, or the key is new"
            )
        _verify(path, public_key=trusted.public_keys[hint])
        return hint

    chain = as_type(material.get("x509CertificateChain"), _Chain, str(file)).certificates
    signer = _check_certificates(path, [entry.rawBytes for entry in chain], trusted)
    _verify(path, authorities=trusted.authorities)
    return signer


def check_signature(path: Path, trusted_keys: str | Path = "") -> str:
    """Return who signed a bundle; empty where no trusted keys are named, and nothing is checked.

    Args:
        path: The bundle.
        trusted_keys: PEM file of trusted keys; empty: that of STREETVISION_TRUSTED_KEYS.

    Raises:
        ConfigError: as `TrustedKeys.of`.
        ArtifactError: as `verify_signature`.
    """
    trusted = TrustedKeys.of(trusted_keys)
    return "" if trusted is None else verify_signature(path, trusted)


def unchecked_warning(path: Path, name: str = "") -> str:
    """Return what should be known of a bundle whose signature nobody has checked.

    Args:
        path: The bundle.
        name: What messages call it; empty: its path.
    """
    if (path / SIGNATURE).is_file():
        return (
            f"{name or path}: is signed, and nobody has checked by whom; name the keys that you"
            f" trust: {Variable.TRUSTED_KEYS}"
        )
    return f"{name or path}: is not signed; its sums do not say who made it"


@contextlib.contextmanager
def trusting(trusted_keys: str | Path = "") -> Iterator[None]:
    """Let the file of an option stand for STREETVISION_TRUSTED_KEYS, which steps read too."""
    former = os.environ.get(Variable.TRUSTED_KEYS)
    if str(trusted_keys):
        os.environ[Variable.TRUSTED_KEYS] = str(trusted_keys)
    try:
        yield
    finally:
        if former is not None:
            os.environ[Variable.TRUSTED_KEYS] = former
        else:
            os.environ.pop(Variable.TRUSTED_KEYS, None)


def signing_key() -> Path | None:
    """Return the file that STREETVISION_SIGNING_KEY names, or None."""
    named = os.environ.get(Variable.SIGNING_KEY, "")
    return Path(named) if named else None


def check_signer(key: Path, trusted: TrustedKeys) -> None:
    """Refuse a signing key whose signatures the trusted keys would not accept.

    Raises:
        ConfigError: the file holds no such key, or nobody who is trusted vouches for it.
    """
    from cryptography import x509

    signer, certified = _signer(key)
    if not certified:
        if signer not in trusted.public_keys:
            raise ConfigError(f"{key}: its public half is not in {trusted.file}; add it there")
        return

    chain = x509.load_pem_x509_certificates(key.read_bytes())
    encoded = [base64.b64encode(_der(certificate)).decode() for certificate in chain]
    try:
        _check_certificates(key, encoded, trusted)
    except ArtifactError as error:
        raise ConfigError(str(error)) from error


def sign_bundle(path: Path, key: Path) -> str:
    """Write the signature of a complete bundle, in place of one that is there.

    Returns who signed it, as `verify_signature` does.

    Args:
        path: The bundle, whose files agree with its manifest.
        key: PEM file with a private key on the curve P-256, P-384 or P-521 without password and,
            where certificates vouch for it, the signer's certificate and its chain after it.

    Raises:
        ConfigError: The key is missing, has a password or another type, or the certificate belongs
            to another key.
        ArtifactError: The bundle differs from its manifest.
    """
    signer, certified = _signer(key)
    verify_dir(path, Kind.BUNDLE)
    from model_signing import signing

    config = signing.Config()  # type: ignore[no-untyped-call]
    config.set_hashing_config(_all_but_the_signature())
    try:
        if certified:
            config.use_certificate_signer(
                private_key=key, signing_certificate=key, certificate_chain=[key]
            )
        else:
            config.use_elliptic_key_signer(private_key=key)
    except ValueError as error:
        raise ConfigError(f"{key}: {one_line(error)}") from error

    temporary = path / f"{SIGNATURE}.tmp"
    config.sign(path, temporary)
    temporary.replace(path / SIGNATURE)
    return signer


def _verify(path: Path, *, public_key: bytes = b"", authorities: Sequence[bytes] = ()) -> None:
    """Verify signature and files by model-signing, which takes keys as files."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from model_signing import verifying

    config = verifying.Config()  # type: ignore[no-untyped-call]
    config.set_hashing_config(_all_but_the_signature())

    with tempfile.TemporaryDirectory(prefix="streetvision-keys-") as folder:
        file = Path(folder, "trusted.pem")
        found = [x509.load_der_x509_certificate(der) for der in authorities]
        file.write_bytes(public_key or b"".join(c.public_bytes(Encoding.PEM) for c in found))
        try:
            if public_key:
                config.use_elliptic_key_verifier(public_key=file)
            else:
                config.use_certificate_verifier(certificate_chain=[file])
            config.verify(path, path / SIGNATURE)
        # Any bytes can be in the file, and the libraries that read them raise whatever comes.
        except Exception as error:
            raise ArtifactError(
                f"{path}: its signature does not hold: {_reason(error)}; this is not what was"
                " signed"
            ) from error


def _reason(error: Exception) -> str:
    """Return why model-signing refused, without its digests of changed files."""
    text = one_line(error)
    changed = _CHANGED.findall(text)
    if changed:
        return f"changed since: {printable(first_of(changed))}"
    return printable(text[:300]) if str(error) else "forged or damaged"


def _all_but_the_signature() -> "hashing.Config":
    """Return how the files are hashed: all but the one that cannot hold its own digest."""
    from model_signing import hashing

    config = hashing.Config()  # type: ignore[no-untyped-call]
    return config.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _check_certificates(path: Path, chain: Sequence[str], trusted: TrustedKeys) -> str:
    """Return the subject of the signer's certificate, which an authority vouches for today."""
    from cryptography import x509
    from OpenSSL import crypto

    if not trusted.authorities:
        raise ArtifactError(
            f"{path}: is signed by a certificate, and {trusted.file} has no authority"
        )
    try:
        first, *others = [
            x509.load_der_x509_certificate(base64.b64decode(der, validate=True)) for der in chain
        ]
        is_for_code = _is_for_code(first)
        subject = first.subject.rfc4514_string()
    except ValueError as error:
        raise ArtifactError(f"{path / SIGNATURE}: has a damaged certificate") from error
    if not is_for_code:
        raise ArtifactError(
            f"{path}: is signed by the certificate {shown(subject)}, which is not for signing code"
            " (extended key usage codeSigning)"
        )

    store = crypto.X509Store()
    for der in trusted.authorities:
        store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(der)))
    context = crypto.X509StoreContext(
        store,
        crypto.X509.from_cryptography(first),
        [crypto.X509.from_cryptography(certificate) for certificate in others],
    )
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        raise ArtifactError(
            f"{path}: is signed by the certificate {shown(subject)}, for which {trusted.file} does"
            f" not vouch: {one_line(error)}"
        ) from error
    return subject


def _is_for_code(certificate: "x509.Certificate") -> bool:
    """Whether a certificate is meant for signing code, as that of a web server is not."""
    from cryptography import x509

    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in usage


def _signer(file: Path) -> tuple[str, bool]:
    """Return whom a private key makes the signer, and whether by a certificate behind it.

    No message repeats a part of the file.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    data = read_bytes(file, most_bytes=_LARGEST_PEM, linked=True, error=ConfigError)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise ConfigError(
            f"{file}: has a password, which nobody could type; give a key without one"
        ) from error
    except Exception as error:  # of a foreign library, about a secret: its words stay here
        raise ConfigError(f"{file}: holds no private key in PEM") from error

    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise ConfigError(
            f"{file}: must be a key on one of the curves {', '.join(_CURVES)}; make one: openssl"
            " genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        )
    if b"CERTIFICATE-----" not in data:
        return _named(key.public_key())[0], False
    try:
        return x509.load_pem_x509_certificate(data).subject.rfc4514_string(), True
    except ValueError as error:
        raise ConfigError(f"{file}: the certificate in it is damaged") from error


def _material(file: Path) -> dict[str, Any]:
    """Return what a signature says about its key."""
    document = read_json(file)
    material = document.get("verificationMaterial") if isinstance(document, dict) else None
    if not isinstance(material, dict) or not isinstance(material.get("publicKey", {}), dict):
        raise ArtifactError(f"{file}: is no signature of model-signing")
    return material


def _blocks(data: bytes, label: str) -> list[bytes]:
    """Return the PEM blocks of a label."""
    start, end = f"-----BEGIN {label}-----".encode(), f"-----END {label}-----".encode()
    return [
        start + part.split(end)[0] + end + b"\n" for part in data.split(start)[1:] if end in part
    ]


def _public_key(block: bytes, file: Path) -> tuple[str, bytes]:
    """Return digest and PEM text of a public key, as model-signing writes it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_public_key(block)
    except Exception as error:  # of a foreign library, for any bytes
        raise ConfigError(f"{file}: a public key in it is damaged") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise ConfigError(f"{file}: a public key is not on one of {', '.join(_CURVES)}")
    return _named(key)


def _named(key: "ec.EllipticCurvePublicKey") -> tuple[str, bytes]:
    """Return the SHA-256 of a public key's PEM text, by which signatures name it, and the text."""
    from cryptography.hazmat.primitives import serialization

    text = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(text).hexdigest(), text


def _der(certificate: "x509.Certificate") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)
