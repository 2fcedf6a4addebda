"""What a bundle was made of, and that the export signs it or says why it cannot."""

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2

from components.shared.contracts.artifacts import (
    MANIFEST,
    PROVENANCE,
    SIGNATURE,
    read_manifest,
    sha256_file,
)
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.serving.bundle import open_bundle
from components.shared.serving.signature import TrustedKeys
from tests.bundles import Inputs, make_inputs
from tests.signing import DAY, NOW, Authority, key_pair

COMMIT, IMAGE = "c0ffee" * 6 + "cafe", f"registry/trainer:export-src-1@sha256:{'ab' * 32}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def _keys(monkeypatch: pytest.MonkeyPatch, private: Path, trusted: Path) -> str:
    monkeypatch.setenv(Variable.SIGNING_KEY, str(private))
    monkeypatch.setenv(Variable.TRUSTED_KEYS, str(trusted))
    return TrustedKeys.read(trusted).digest


def test_equal_exports_have_equal_digests_whoever_signs_and_whatever_the_commit(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = inputs.export(tmp_path / "unsigned")
    trusted = _keys(monkeypatch, *key_pair(tmp_path, "signer"))
    monkeypatch.setenv(Variable.GIT_COMMIT, COMMIT)
    monkeypatch.setenv(Variable.IMAGE, IMAGE)
    monkeypatch.setenv(Variable.IMAGES, json.dumps({"evaluate": IMAGE}))
    signed = inputs.export(tmp_path / "signed", trusted_keys=trusted)

    assert open_bundle(signed).signer
    assert not (unsigned / SIGNATURE).exists()
    assert read_manifest(signed).content_digest == read_manifest(unsigned).content_digest
    for name in read_manifest(unsigned).files:
        assert (signed / name).read_bytes() == (unsigned / name).read_bytes()
    monkeypatch.delenv(Variable.TRUSTED_KEYS)
    again = shutil.copytree(unsigned, tmp_path / "again")
    shutil.rmtree(unsigned)
    monkeypatch.delenv(Variable.SIGNING_KEY)
    for name in (Variable.GIT_COMMIT, Variable.IMAGE, Variable.IMAGES):
        monkeypatch.delenv(name)
    inputs.export(unsigned)
    assert (again / PROVENANCE).read_bytes() == (unsigned / PROVENANCE).read_bytes()


def test_the_statement_is_in_totos_with_the_provenance_of_slsa(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are read by the schemas that in-toto publishes, which refuse an unknown field."""
    monkeypatch.setenv(Variable.GIT_COMMIT, COMMIT)
    monkeypatch.setenv(Variable.IMAGE, IMAGE)
    monkeypatch.setenv(Variable.IMAGES, json.dumps({"evaluate": IMAGE}))
    bundle = inputs.export(tmp_path / "bundle")
    document = json.loads((bundle / PROVENANCE).read_text())
    json_format.ParseDict(document, statement_pb2.Statement())
    json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())

    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in document["subject"]}
    assert subjects == {
        name: sha256_file(bundle / name) for name in (*read_manifest(bundle).files, MANIFEST)
    }

    definition = document["predicate"]["buildDefinition"]
    found = {entry["name"]: entry for entry in definition["resolvedDependencies"]}
    assert found["source"]["digest"] == {"gitCommit": COMMIT}
    assert found["image"]["digest"] == {"sha256": "ab" * 32}
    dataset = read_manifest(bundle).inputs["dataset"]
    assert found["dataset"]["digest"] == {"contentDigest": dataset}
    assert definition["externalParameters"]["bundle"]["model_version"] == "0.1.0"
    assert "evaluation" in definition["externalParameters"]
    assert definition["internalParameters"]["images"] == {"evaluate": IMAGE}


def test_a_key_and_who_trusts_it_are_named_together(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "signer")
    trusted = _keys(monkeypatch, private, public)
    monkeypatch.delenv(Variable.SIGNING_KEY)
    with pytest.raises(ConfigError, match="STREETVISION_SIGNING_KEY is not; name the private key"):
        inputs.export(tmp_path / "bundle", trusted_keys=trusted)

    monkeypatch.setenv(Variable.SIGNING_KEY, str(private))
    monkeypatch.delenv(Variable.TRUSTED_KEYS)
    with pytest.raises(ConfigError, match="STREETVISION_TRUSTED_KEYS is not: name the file"):
        inputs.export(tmp_path / "bundle")
    with pytest.raises(ConfigError, match="names other keys than the run began with"):
        inputs.export(tmp_path / "bundle", trusted_keys=trusted)
    assert not (tmp_path / "bundle").exists()


def test_a_key_that_nobody_trusts_does_not_sign(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = key_pair(tmp_path, "foreign")
    authority = Authority(tmp_path)
    trusted = _keys(monkeypatch, private, authority.trusted)
    with pytest.raises(ConfigError, match="its public half is not in"):
        inputs.export(tmp_path / "bundle", trusted_keys=trusted)

    expired = authority.issue("expired", valid=(NOW - 9 * DAY, NOW - DAY))
    _keys(monkeypatch, expired, authority.trusted)
    with pytest.raises(ConfigError, match="certificate has expired"):
        inputs.export(tmp_path / "bundle", trusted_keys=trusted)
    assert not (tmp_path / "bundle").exists()

    _keys(monkeypatch, authority.issue("release"), authority.trusted)
    bundle = inputs.export(tmp_path / "bundle", trusted_keys=trusted)
    assert open_bundle(bundle).signer == "CN=release"


def test_the_key_is_in_nothing_that_the_export_writes_or_prints(
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    private, public = key_pair(tmp_path, "signer")
    bundle = inputs.export(tmp_path / "bundle", trusted_keys=_keys(monkeypatch, private, public))
    secret = private.read_text().splitlines()[1:-1]
    printed = "".join(capfd.readouterr())
    written = [file.read_bytes() for file in bundle.rglob("*") if file.is_file()]
    for line in (*secret, str(private)):
        assert line not in printed
        assert not any(line.encode() in data for data in written)
