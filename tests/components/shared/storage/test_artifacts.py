"""Artifacts in the store."""

import json
from pathlib import Path

import pytest

from components.shared.contracts import artifacts
from components.shared.contracts.artifacts import sha256_file, writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError
from components.shared.storage import Store, StoreSettings
from components.shared.storage.artifacts import download_artifact, upload_artifact
from components.shared.storage.errors import (
    DigestMismatchError,
    ObjectNotFoundError,
)
from components.shared.storage.registry import BundleRegistry
from tests.resigned import signed


@pytest.fixture
def store(s3: StoreSettings) -> Store:
    return Store(s3, deadline_seconds=10)


def _bundle(path: Path, content: str) -> Path:
    with writing(path, kind="Bundle", step="export_bundle", config=Config()) as staging:
        (staging / "model").mkdir()
        (staging / "model" / "weights.bin").write_text(content)
        (staging / "bundle.json").write_text("{}")
    return path


def _put(store: Store, bucket: str, key: str, file: Path, data: bytes) -> None:
    file.write_bytes(data)
    store.put(bucket, key, file)


def test_every_object_of_an_artifact_has_its_sha256(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path / "up", "weights")
    prefix = f"bundles/{BundleRegistry(store, bucket).put_bundle(bundle)}"
    names = [item.key.removeprefix(f"{prefix}/") for item in store.list(bucket, prefix)]
    assert sorted(names) == ["bundle.json", "manifest.json", "model/weights.bin"]
    for name in names:
        assert store.metadata(bucket, f"{prefix}/{name}")["sha256"] == sha256_file(bundle / name)


def test_a_changed_or_missing_file_is_refused_and_nothing_is_left(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    registry = BundleRegistry(store, bucket)
    digest = registry.put_bundle(_bundle(tmp_path / "up", "weights"))
    _put(store, bucket, f"bundles/{digest}/model/weights.bin", tmp_path / "x", b"wEights")
    with pytest.raises(DigestMismatchError, match=r"weights\.bin"):
        registry.get_bundle(digest, tmp_path / "down")
    store.delete(bucket, f"bundles/{digest}/model/weights.bin")
    with pytest.raises(ObjectNotFoundError, match=r"weights\.bin"):
        registry.get_bundle(digest, tmp_path / "down")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["up", "x"]


def test_an_artifact_is_hashed_once_to_be_sent_and_once_to_be_received(
    store: Store, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it passes: the files on the disk are not hashed for it as well."""
    bundle = _bundle(tmp_path / "up", "weights")
    monkeypatch.setattr(artifacts, "_sha256_unless", lambda *_: pytest.fail("hashed on the disk"))
    sent = upload_artifact(store, bundle, bucket, "p", kind="Bundle")
    assert download_artifact(store, bucket, "p", tmp_path / "down", kind="Bundle") == sent
    monkeypatch.undo()
    assert artifacts.verify_dir(tmp_path / "down", "Bundle") == sent


def test_a_file_that_is_not_what_its_manifest_says_is_not_sent(
    store: Store, bucket: str, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path / "up", "weights")
    (bundle / "model/weights.bin").write_bytes(b"wEights")
    with pytest.raises(DigestMismatchError, match=r"weights\.bin changed"):
        upload_artifact(store, bundle, bucket, "p", kind="Bundle")
    with pytest.raises(ObjectNotFoundError):
        download_artifact(store, bucket, "p", tmp_path / "down", kind="Bundle")
    (bundle / "model/weights.bin").unlink()
    with pytest.raises(ArtifactError, match=r"model/weights\.bin: missing"):
        upload_artifact(store, bundle, bucket, "p", kind="Bundle")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", ""])
def test_a_manifest_cannot_write_outside(
    store: Store, bucket: str, tmp_path: Path, name: str
) -> None:
    bundle = _bundle(tmp_path / "up", "weights")
    document = json.loads((bundle / "manifest.json").read_bytes())
    document["files"][name] = {"sha256": "0" * 64, "bytes": 0}
    _put(store, bucket, "p/manifest.json", tmp_path / "m", signed(document))
    with pytest.raises(ArtifactError, match=r"leaves the artifact|a backslash"):
        download_artifact(store, bucket, "p", tmp_path / "down", kind="Bundle")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"files": 3}', b'{"digest": "x"}', b"\xff"])
def test_garbage_is_named(store: Store, bucket: str, tmp_path: Path, data: bytes) -> None:
    _put(store, bucket, "p/manifest.json", tmp_path / "m", data)
    with pytest.raises(ArtifactError, match=r"p/manifest\.json: "):
        download_artifact(store, bucket, "p", tmp_path / "down", kind="Bundle")
