"""The verb `sign`, and the verbs that ask who has signed, against a real S3 server."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.contracts.artifacts import SIGNATURE, read_manifest
from components.shared.contracts.environment import Variable
from components.shared.serving import tensorrt_engine
from components.shared.serving.signature import TrustedKeys, sign_bundle, verify_signature
from components.shared.storage import StoreSettings
from components.shared.storage.registry import BundleRegistry
from pipelines.cli.app import main
from tests.bundles import edit_json, resigned
from tests.components.conftest import write_source
from tests.golden.make import FOLDER
from tests.registries import name_registry, new_registry
from tests.signing import key_pair

Refused = Callable[..., str]


@pytest.fixture
def registry(s3: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> BundleRegistry:
    found = new_registry(s3)
    name_registry(found, s3, monkeypatch)
    return found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(FOLDER / "bundle", tmp_path / "bundle")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "signing")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a verb that ends with 42; return its one line."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert ended.value.code == 42
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


def test_a_folder_is_signed_and_the_signer_named(
    bundle: Path,
    keys: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private, public = keys
    main(["sign", str(bundle), "--key", str(private), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "bundle": str(bundle),
        "signer": verify_signature(bundle, TrustedKeys.read(public)),
    }

    (bundle / SIGNATURE).unlink()
    monkeypatch.setenv(Variable.SIGNING_KEY, str(private))
    main(["sign", str(bundle)])
    assert capsys.readouterr().out == f"signer: {found['signer']}\n"


def test_a_bundle_of_the_registry_is_signed_there_and_downloaded_by_who_trusts_the_key(
    registry: BundleRegistry,
    bundle: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    refused: Refused,
    capsys: pytest.CaptureFixture[str],
) -> None:
    private, public = keys
    digest = registry.put_bundle(bundle)
    download = ("registry", "download", digest[:9], "--output", tmp_path / "down")
    line = refused(*download, "--trusted-keys", public)
    assert f"is not signed ({SIGNATURE} is missing)" in line
    assert not (tmp_path / "down").exists()

    main(["sign", digest[:9], "--key", str(private)])
    capsys.readouterr()
    main([*map(str, download), "--trusted-keys", str(public), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == digest
    assert found["signer"] in TrustedKeys.read(public).public_keys
    assert read_manifest(tmp_path / "down").content_digest == digest

    _, foreign = key_pair(tmp_path, "foreign")
    shutil.rmtree(tmp_path / "down")
    assert "is signed by the key" in refused(*download, "--trusted-keys", foreign)
    assert not (tmp_path / "down").exists()


def test_what_nobody_checks_is_said_when_a_bundle_leaves_the_registry(
    registry: BundleRegistry,
    bundle: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = registry.put_bundle(bundle)
    main(["registry", "download", digest, "--output", str(tmp_path / "first")])
    assert "warning: " in capsys.readouterr().err

    main(["sign", digest, "--key", str(keys[0])])
    main(["registry", "download", digest, "--output", str(tmp_path / "second")])
    assert "is signed, and nobody has checked by whom" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [
        ("score", "{bundle}", "{photos}", "--output", "{out}"),
        ("drift", "--reference", "{bundle}", "--images", "{photos}", "--output", "{out}"),
        ("serve", "{bundle}", "--port", "0", "--grpc-port", "0"),
        ("export", "triton", "{bundle}", "--output", "{out}"),
        ("export", "tensorrt", "{bundle}", "--output", "{out}"),
        ("select-for-labelling", "{photos}", "--bundle", "{bundle}", "--output", "{out}"),
    ],
    ids=lambda verb: " ".join(verb[:2]),
)
def test_no_verb_opens_a_bundle_that_nobody_trusted_has_signed(
    verb: tuple[str, ...],
    keys: tuple[Path, Path],
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = shutil.copytree(FOLDER / "onnx_bundle", tmp_path / "bundle")
    write_source(tmp_path / "photos", 4)
    places = {"bundle": bundle, "photos": tmp_path / "photos", "out": tmp_path / "out"}
    words = [word.format(**places) for word in verb]
    monkeypatch.setattr(tensorrt_engine, "load_tensorrt", lambda: None)  # as where it is installed

    monkeypatch.setenv(Variable.TRUSTED_KEYS, str(keys[1]))
    assert "is not signed" in refused(*words)
    sign_bundle(bundle, key_pair(tmp_path, "foreign")[0])
    assert "is signed by the key" in refused(*words)
    assert not (tmp_path / "out").exists()

    monkeypatch.delenv(Variable.TRUSTED_KEYS)
    assert "is signed by the key" in refused(*words, "--trusted-keys", keys[1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "verb",
    [
        ("score", "{bundle}", "{photos}", "--output", "{out}", "--form", "onnx"),
        ("drift", "--reference", "{bundle}", "--images", "{empty}"),
        ("select-for-labelling", "{photos}", "--bundle", "{bundle}", "--output", "{out}"),
        ("export", "triton", "{bundle}", "--output", "{out}"),
    ],
    ids=lambda verb: verb[0],
)
def test_a_verb_says_once_that_nobody_has_signed_the_bundle(
    verb: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = FOLDER / "onnx_bundle"
    write_source(tmp_path / "photos", 4)
    (tmp_path / "empty").mkdir()
    places = {name: tmp_path / name for name in ("photos", "empty", "out")} | {"bundle": bundle}
    with contextlib.suppress(SystemExit):  # of drift, which has no image
        main([word.format(**places) for word in verb])

    warnings = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")
    ]
    assert warnings == [f"warning: {bundle}: is not signed; its sums do not say who made it"]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_bundle_that_nobody_trusted_has_signed_is_not_promoted(
    registry: BundleRegistry,
    bundle: Path,
    keys: tuple[Path, Path],
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    force: tuple[str, ...],
) -> None:
    promote = ("promote", bundle, "--because", "a try", *force)
    assert "is not signed" in refused(*promote, "--trusted-keys", keys[1])
    monkeypatch.setenv(Variable.TRUSTED_KEYS, str(keys[1]))
    assert "is not signed" in refused(*promote)
    assert registry.champion() is None
    assert registry.bundles() == []


def test_a_signed_bundle_is_promoted(
    registry: BundleRegistry,
    bundle: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private, public = keys
    main(["sign", str(bundle), "--key", str(private)])
    monkeypatch.setenv(Variable.TRUSTED_KEYS, "nowhere")  # the option stands for it
    main(["promote", str(bundle), "--because", "a try", "--force", "--trusted-keys", str(public)])
    champion = registry.champion()
    assert champion is not None
    assert champion.digest == read_manifest(bundle).content_digest


def test_no_rollback_goes_to_a_champion_that_nobody_trusted_has_signed(
    registry: BundleRegistry,
    bundle: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    private, public = keys
    first = read_manifest(bundle).content_digest
    second = resigned(
        bundle, tmp_path / "second", lambda out: edit_json(out / "preprocessing.json", note="2")
    )
    for path in (bundle, second):
        main(["promote", str(path), "--because", "a try", "--force"])
    present = registry.champion()

    assert "is not signed" in refused("rollback", "--trusted-keys", public)
    main(["sign", first, "--key", str(key_pair(tmp_path, "foreign")[0])])
    monkeypatch.setenv(Variable.TRUSTED_KEYS, str(public))
    assert "is signed by the key" in refused("rollback")
    assert registry.champion() == present

    main(["sign", first, "--key", str(private)])
    capsys.readouterr()
    main(["rollback"])
    assert capsys.readouterr().err == ""
    champion = registry.champion()
    assert champion is not None
    assert champion.digest == first

    monkeypatch.delenv(Variable.TRUSTED_KEYS)
    main(["rollback", read_manifest(second).content_digest])
    assert "is not signed; its sums do not say who made it" in capsys.readouterr().err


def test_a_key_is_needed_and_a_bundle(
    bundle: Path, keys: tuple[Path, Path], refused: Refused, tmp_path: Path
) -> None:
    assert "no key is named; give --key FILE" in refused("sign", bundle)
    assert "cannot be read" in refused("sign", bundle, "--key", tmp_path / "none.pem")
    assert "no manifest.json" in refused("sign", tmp_path, "--key", keys[0])
