"""A bundle opens where a trusted key has signed it as it is, and is refused in one line else.

The attacker here can write every file of a bundle and its sums, and has signing keys of his own.
What model-signing and OpenSSL compute is theirs; the last tests ask their own command about
signatures of ours, and the other way round.
"""

import json
import shutil
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import (
    MANIFEST,
    SIGNATURE,
    read_manifest,
    sha256_file,
    write_json,
)
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError
from components.shared.serving.bundle import DOCUMENT, open_bundle
from components.shared.serving.signature import TrustedKeys, sign_bundle
from tests.bundles import edit_json
from tests.golden.make import FOLDER
from tests.resigned import resign
from tests.signing import Authority, key_pair

FILES = sorted(
    file.relative_to(FOLDER / "bundle").as_posix()
    for file in (FOLDER / "bundle").rglob("*")
    if file.is_file()
)


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
    document["files"] = {name: sha256_file(bundle / name) for name in FILES if name not in own}
    write_json(bundle / DOCUMENT, document)
    signature = (bundle / SIGNATURE).read_bytes()
    (bundle / SIGNATURE).unlink()
    resign(bundle, **changes)
    (bundle / SIGNATURE).write_bytes(signature)


def change(bundle: Path, name: str) -> None:
    """Change a file so that the bundle still opens, and write new sums of everything."""
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
