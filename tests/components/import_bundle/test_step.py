"""A bundle of a folder or of the registry arrives unchanged; a damaged one does not."""

import shutil
from pathlib import Path

import pytest

from components.import_bundle.config import ImportBundleConfig
from components.import_bundle.step import run
from components.shared.contracts.artifacts import read_manifest
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.serving.bundle import open_bundle
from components.shared.storage import Store, StoreSettings
from components.shared.storage.registry import BundleRegistry
from pipelines.sources import ROOT

BUNDLE = ROOT / "tests/golden/schema1/bundle"


def test_a_folder_is_copied_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(BUNDLE, tmp_path / "given")
    for _ in range(2):  # what an earlier attempt left is replaced
        run(ImportBundleConfig(bundle=str(tmp_path / "given")), imported=tmp_path / "bundle")
    assert open_bundle(tmp_path / "bundle").policy == open_bundle(tmp_path / "given").policy
    assert read_manifest(tmp_path / "bundle") == read_manifest(BUNDLE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "given"]
    assert read_manifest(BUNDLE).content_digest[:12] in capsys.readouterr().out


def test_a_bundle_of_the_registry(
    tmp_path: Path, s3: StoreSettings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    BundleRegistry(Store(s3), bucket, "registry").put_bundle(BUNDLE)
    given = {
        "bundle": read_manifest(BUNDLE).content_digest[:12],
        "bundle_registry": f"s3://{bucket}/registry",
    }
    run(ImportBundleConfig(**given), imported=tmp_path / "bundle")
    assert read_manifest(tmp_path / "bundle") == read_manifest(BUNDLE)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bundle='nowhere' is no folder"):
        run(ImportBundleConfig(bundle="nowhere"), imported=tmp_path / "bundle")
    shutil.copytree(BUNDLE, tmp_path / "given")
    (tmp_path / "given/policy.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"policy\.json"):
        run(ImportBundleConfig(bundle=str(tmp_path / "given")), imported=tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given"]
