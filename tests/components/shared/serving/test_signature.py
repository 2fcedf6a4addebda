"""A bundle opens where a trusted key has signed it as it is, and is refused in one line else.

The attacker here can write every file of a bundle and its sums, and has signing keys of his own.
What model-signing and OpenSSL compute is theirs; the last tests ask their own command about
signatures of ours, and the other way round.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from components.shared.contracts.artifacts import (
    MANIFEST,
    SIGNATURE,
    read_manifest,
    sha256_file,
    write_json,
)
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.serving.bundle import DOCUMENT, open_bundle
from components.shared.serving.signature import TrustedKeys, sign_bundle
from pipelines.sources import ROOT
from tests.bundles import edit_json, onnx_bundle
from tests.golden.make import FOLDER
from tests.resigned import resign
from tests.signing import DAY, NOW, Authority, key_pair, private_key


def files(bundle: Path, *but: str) -> list[str]:
    """Return the names of a bundle's files, without some."""
    found = [file.relative_to(bundle) for file in bundle.rglob("*") if file.is_file()]
    return sorted({name.as_posix() for name in found} - set(but))


FILES = files(FOLDER / "bundle")

_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA = _RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
RSA_PRIVATE = _RSA.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


def _certificates(file: Path) -> bytes:
    """Return what stands behind the private key of a file."""
    return b"-----BEGIN CERT" + file.read_bytes().partition(b"-----BEGIN CERT")[2]


class Signer:
    """Keys of one signer in a folder: a pair, and an authority with a certified key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.key, self.public = key_pair(folder, "signer")
        self.authority = Authority(folder)
        self.certified = self.authority.issue("release")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signing") / "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("signing") / "foreign")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, ours: Signer) -> Path:
    path = tmp_path_factory.mktemp("signed") / "bundle"
    shutil.copytree(FOLDER / "bundle", path)
    sign_bundle(path, ours.key)
    return path


@pytest.fixture
def copied(signed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(signed, tmp_path / "bundle")


def with_new_sums(bundle: Path, **changes: str) -> None:
    """Make bundle.json and the manifest agree with the files, as an attacker does."""
    own = (DOCUMENT, MANIFEST, SIGNATURE)
    document = json.loads((bundle / DOCUMENT).read_text())
    document["files"] = {name: sha256_file(bundle / name) for name in files(bundle, *own)}
    write_json(bundle / DOCUMENT, document)
    signature = (bundle / SIGNATURE).read_bytes()
    (bundle / SIGNATURE).unlink()
    resign(bundle, **changes)
    (bundle / SIGNATURE).write_bytes(signature)


def change(bundle: Path, name: str, *, signature: bytes | None = None) -> None:
    """Change a file so that the bundle still opens, and write new sums of everything.

    The signature stays, or is `signature`.
    """
    if signature is not None:
        (bundle / SIGNATURE).write_bytes(signature)
    file = bundle / name
    if name == DOCUMENT:
        edit_json(file, version="9.9.9")
    elif name == "policy.json":
        edit_json(file, threshold=0.0, threshold_margin=-800.0)
    elif name != MANIFEST:
        file.write_bytes(file.read_bytes() + b" ")
    with_new_sums(bundle, step="another" if name == MANIFEST else "export_bundle")


def _refused(bundle: Path, trusted: Path, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        open_bundle(bundle, trusted_keys=trusted)
    assert "\n" not in str(caught.value)


def test_the_signer_is_named_and_the_digest_is_that_of_the_unsigned_bundle(
    signed: Path, ours: Signer
) -> None:
    opened = open_bundle(signed, trusted_keys=ours.public)
    assert opened.signer in TrustedKeys.read(ours.public).public_keys
    assert opened.signature_warning() == ""
    digest = read_manifest(FOLDER / "bundle").content_digest
    assert open_bundle(signed, digest).policy == opened.policy


def test_the_environment_names_the_trusted_keys(
    signed: Path, ours: Signer, foreign: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.TRUSTED_KEYS, str(foreign.public))
    with pytest.raises(ArtifactError, match="is not in"):
        open_bundle(signed)
    assert open_bundle(signed, trusted_keys=ours.public).signer


def test_without_trusted_keys_old_and_foreign_bundles_open_with_a_warning(signed: Path) -> None:
    assert "is not signed" in open_bundle(FOLDER / "bundle").signature_warning()
    assert "nobody has checked by whom" in open_bundle(signed).signature_warning()


@pytest.mark.parametrize("name", [*FILES, SIGNATURE])
def test_a_flipped_byte_is_refused(name: str, copied: Path, ours: Signer) -> None:
    file = copied / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    _refused(copied, ours.public, "bundle")


@pytest.mark.parametrize("name", FILES)
def test_new_sums_over_a_changed_file_are_refused(name: str, copied: Path, ours: Signer) -> None:
    """The whole attacker: bundle.json and the manifest fit the changed file."""
    change(copied, name)
    assert open_bundle(copied).signer == "", "without a key nobody can tell"
    _refused(copied, ours.public, f"its signature does not hold: changed since: .*{MANIFEST}")


@pytest.mark.parametrize("name", FILES)
def test_what_another_signs_is_refused(
    name: str, copied: Path, ours: Signer, foreign: Signer
) -> None:
    change(copied, name)
    sign_bundle(copied, foreign.key)
    _refused(copied, ours.public, "is signed by the key '[0-9a-f]{16}', which is not in")

    sign_bundle(copied, foreign.certified)
    _refused(copied, ours.authority.trusted, "CN=release.*does not vouch")


EXPIRED, FUTURE = (NOW - 9 * DAY, NOW - DAY), (NOW + DAY, NOW + 9 * DAY)
SERVER = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"valid": EXPIRED}, "does not vouch: certificate has expired"),
        ({"valid": FUTURE}, "does not vouch: certificate is not yet valid"),
        ({"usage": SERVER}, "is not for signing code"),
        ({"usage": None}, "is not for signing code"),
    ],
)
@pytest.mark.parametrize("name", [*FILES, ""])
def test_a_certificate_that_is_not_valid_now_is_refused(
    name: str, fields: dict[str, Any], message: str, copied: Path, ours: Signer
) -> None:
    """Whether a file was changed as well or, for the empty name, none."""
    if name:
        change(copied, name)
    sign_bundle(copied, ours.authority.issue("other", **fields))
    _refused(copied, ours.authority.trusted, message)


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, ours: Signer) -> Path:
    """A bundle as it is exported today, with onnx/, and signed."""
    path = shutil.copytree(onnx_bundle(tmp_path_factory), tmp_path / "fresh")
    sign_bundle(path, ours.key)
    return path


@pytest.mark.parametrize("attack", ["flip", "new sums", "foreign key", "expired certificate"])
def test_every_file_of_a_new_export_is_protected(
    attack: str, fresh: Path, tmp_path: Path, ours: Signer, foreign: Signer
) -> None:
    names = files(fresh, SIGNATURE)
    assert {"onnx/model.onnx", "onnx/format.json", "sbom.cdx.json"} < set(names)
    expired = ours.authority.issue("other", valid=EXPIRED)
    for name in names:
        bundle, trusted = shutil.copytree(fresh, tmp_path / "bundle"), ours.public
        if attack == "flip":
            data = bytearray((bundle / name).read_bytes())
            data[len(data) // 2] ^= 1
            (bundle / name).write_bytes(data)
            message = "bundle"
        else:
            change(bundle, name)
            assert open_bundle(bundle).signer == "", name
            message = f"its signature does not hold: changed since: .*{MANIFEST}"
        if attack == "foreign key":
            sign_bundle(bundle, foreign.key)
            message = "which is not in"
        elif attack == "expired certificate":
            sign_bundle(bundle, expired)
            trusted, message = ours.authority.trusted, "does not vouch: certificate has expired"
        _refused(bundle, trusted, message)
        shutil.rmtree(bundle)


def test_a_certificate_of_the_authority_is_accepted_and_named(copied: Path, ours: Signer) -> None:
    assert sign_bundle(copied, ours.certified) == "CN=release"
    assert open_bundle(copied, trusted_keys=ours.authority.trusted).signer == "CN=release"
    _refused(copied, ours.public, "has no authority")

    sign_bundle(copied, ours.key)
    _refused(copied, ours.authority.trusted, "which is not in")


def test_keys_are_replaced_while_both_are_trusted(
    copied: Path, ours: Signer, foreign: Signer, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(
        foreign.public.read_bytes() + ours.public.read_bytes() + ours.authority.trusted.read_bytes()
    )
    for key in (ours.key, foreign.key, ours.certified):
        signer = sign_bundle(copied, key)
        assert open_bundle(copied, trusted_keys=both).signer == signer

    again = tmp_path / "again.pem"
    again.write_bytes(ours.public.read_bytes() + foreign.public.read_bytes())
    assert TrustedKeys.read(both).digest != TrustedKeys.read(again).digest
    again.write_bytes(again.read_bytes() + ours.authority.trusted.read_bytes())
    assert TrustedKeys.read(both).digest == TrustedKeys.read(again).digest


def test_a_bundle_without_a_signature_is_refused_and_so_is_one_of_another_bundle(
    copied: Path, ours: Signer
) -> None:
    signature = (copied / SIGNATURE).read_bytes()
    (copied / SIGNATURE).unlink()
    _refused(copied, ours.public, "is not signed .*sign it if it is yours: streetvision sign")

    change(copied, "README.md", signature=signature)
    _refused(copied, ours.public, "changed since: README.md, bundle.json, manifest.json")


@pytest.mark.parametrize("name", ["more.txt", "model/more.txt", ".gitignore"])
def test_an_added_file_is_refused(name: str, copied: Path, ours: Signer) -> None:
    (copied / name).write_text("more")
    _refused(copied, ours.public, name)


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_refused(name: str, copied: Path, ours: Signer) -> None:
    (copied / name).unlink()
    _refused(copied, ours.public, name)


def test_a_link_is_refused(copied: Path, ours: Signer, tmp_path: Path) -> None:
    (copied / "README.md").rename(tmp_path / "README.md")
    (copied / "README.md").symlink_to(tmp_path / "README.md")
    _refused(copied, ours.public, "symlink")

    (copied / SIGNATURE).rename(tmp_path / SIGNATURE)
    (copied / SIGNATURE).symlink_to(tmp_path / SIGNATURE)
    _refused(copied, ours.public, "not a regular file")
    with pytest.raises(ArtifactError, match="symbolic link refused"):
        open_bundle(copied)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"verificationMaterial": {}}',
        '{"verificationMaterial": {"publicKey": []}}',
        '{"verificationMaterial": {"publicKey": {}}}',
        '{"verificationMaterial": {"publicKey": {"hint": "HINT"}}}',
        '{"verificationMaterial": {"publicKey": {"hint": "HINT"}}, "dsseEnvelope": {}}',
        '{"verificationMaterial": {"x509CertificateChain": {"certificates": []}}}',
        '{"verificationMaterial": {"x509CertificateChain": {"certificates": [{"rawBytes": "A"}]}}}',
    ],
)
def test_what_is_no_signature_is_refused_in_one_line(
    text: str, copied: Path, ours: Signer, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(ours.public.read_bytes() + ours.authority.trusted.read_bytes())
    hint = next(iter(TrustedKeys.read(both).public_keys))
    (copied / SIGNATURE).write_text(text.replace("HINT", hint))
    _refused(copied, both, "bundle")


def test_a_signature_of_other_files_of_ours_is_refused(
    copied: Path, ours: Signer, tmp_path: Path
) -> None:
    """Of an earlier bundle, as it stands in the registry for everybody to copy."""
    earlier = tmp_path / "earlier"
    shutil.copytree(copied, earlier)
    change(earlier, "policy.json")
    sign_bundle(earlier, ours.key)
    shutil.copy(earlier / SIGNATURE, copied / SIGNATURE)
    _refused(copied, ours.public, "changed since: bundle.json, manifest.json, policy.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a public key nor a certificate"),
        (b"-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n", "is damaged"),
        (b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "is damaged"),
        (RSA, "a public key is not on one of secp256r1"),
    ],
)
def test_a_file_of_trusted_keys_without_one_is_refused(
    content: bytes, message: str, signed: Path, tmp_path: Path
) -> None:
    file = tmp_path / "trusted.pem"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        open_bundle(signed, trusted_keys=file)


def test_a_missing_file_of_trusted_keys_is_no_reason_to_trust(
    signed: Path, ours: Signer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        open_bundle(signed, trusted_keys=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="holds a private key"):
        open_bundle(signed, trusted_keys=ours.key)


def test_a_key_that_cannot_sign_is_refused_and_nothing_of_it_is_said(
    copied: Path, ours: Signer, foreign: Signer, tmp_path: Path
) -> None:
    file, secret = tmp_path / "key.pem", "c2VjcmV0"
    before = (copied / SIGNATURE).read_bytes()
    private_key(file, password=b"password")
    cases = [(file.read_bytes(), "has a password"), (b"", "holds no private key in PEM")]
    damaged = f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"
    cases += [(damaged.encode(), "holds no private key in PEM")]
    cases += [(foreign.key.read_bytes() + _certificates(ours.certified), "does not match")]
    cases += [(RSA_PRIVATE, "must be a key on one of the curves")]
    for content, message in cases:
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=message) as caught:
            sign_bundle(copied, file)
        assert secret not in str(caught.value)
    assert (copied / SIGNATURE).read_bytes() == before


def test_a_bundle_that_differs_from_its_manifest_is_not_signed(copied: Path, ours: Signer) -> None:
    (copied / "README.md").write_text("another")
    with pytest.raises(ArtifactError, match="difference"):
        sign_bundle(copied, ours.key)


def _model_signing(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command of model-signing, as somebody runs it who has nothing of this project."""
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_of_model_signing_verifies_and_refuses_as_we_do(
    copied: Path, ours: Signer
) -> None:
    by_key = ("verify", "key", copied, "--signature", copied / SIGNATURE)
    assert _model_signing(*by_key, "--public_key", ours.public).returncode == 0

    change(copied, "policy.json")
    found = _model_signing(*by_key, "--public_key", ours.public)
    assert found.returncode != 0
    assert "policy.json" in found.stdout + found.stderr


def test_the_keys_of_the_guide_sign_and_are_trusted(tmp_path: Path) -> None:
    """The block of docs/guides/trust.md, by OpenSSL."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    guide = (ROOT / "docs/guides/trust.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(openssl .*?)```", guide, re.DOTALL)
    script = f'{block}printf "%s\\n" "${Variable.SIGNING_KEY}" "${Variable.TRUSTED_KEYS}"\n'
    made = subprocess.run(
        ["bash", "-eu"], input=script, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    key, trusted = made.stdout.splitlines()

    path = shutil.copytree(FOLDER / "bundle", tmp_path / "bundle")
    signer = sign_bundle(path, Path(key))
    assert open_bundle(path, trusted_keys=trusted).signer == signer


@pytest.mark.slow
def test_the_command_of_model_signing_verifies_by_certificate(
    copied: Path, ours: Signer, foreign: Signer
) -> None:
    sign_bundle(copied, ours.certified)
    by_certificate = ("verify", "certificate", copied, "--signature", copied / SIGNATURE)
    for signer, accepted in ((ours, True), (foreign, False)):
        found = _model_signing(*by_certificate, "--certificate_chain", signer.authority.trusted)
        assert (found.returncode == 0) is accepted


def test_a_signature_by_the_command_of_model_signing_is_accepted(
    tmp_path: Path, ours: Signer
) -> None:
    path = shutil.copytree(FOLDER / "bundle", tmp_path / "bundle")
    private = ("--private_key", ours.key)
    signed = _model_signing("sign", "key", path, "--signature", path / SIGNATURE, *private)
    assert signed.returncode == 0, signed.stderr
    assert open_bundle(path, trusted_keys=ours.public).signer
