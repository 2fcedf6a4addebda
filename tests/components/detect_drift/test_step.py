"""The step on a tiny bundle: no drift among images of the training's source, drift among others."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from components.detect_drift.config import DetectDriftConfig
from components.detect_drift.new_images import FEWEST_GROUPS
from components.detect_drift.step import Result, run
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir
from components.shared.contracts.errors import ArtifactError, ConfigError, DataError
from components.shared.data.drift_reference import write_reference
from components.shared.serving.bundle import open_bundle
from components.shared.storage import Store
from components.shared.storage.artifacts import upload_artifact
from components.shared.storage.registry import BundleRegistry, Draft
from components.shared.storage.settings import StoreSettings
from tests.bundles import resigned
from tests.drift import N_REFERENCE, write_bundle, write_new_images

N_NEW = 40
OPTIONS = {"n_permutations": 199, "false_alarm_rate": 0.05, "n_shown": 3}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a random model, whose reference are noise images."""
    return write_bundle(tmp_path_factory.mktemp("drift"))


def _compare(bundle: Path | str, place: Path | str, out: Path, **options: object) -> Result:
    config = DetectDriftConfig(
        **(OPTIONS | {"reference": str(bundle), "images": str(place)} | options)  # type: ignore[arg-type]
    )
    return run(config, drift=out / "drift", report=out / "report.html")


def test_images_of_the_same_kind_are_no_drift_and_darker_ones_are(
    bundle: Path, tmp_path: Path
) -> None:
    same = _compare(bundle, write_new_images(tmp_path / "same"), tmp_path / "a")
    assert not same.is_drift
    assert same.metrics["drift"] == 0
    assert same.document["unit"] == "near_duplicates"
    assert same.document["n_reference_groups"] == N_REFERENCE + 7

    dark = _compare(bundle, write_new_images(tmp_path / "dark", darker=0.4), tmp_path / "b")
    assert dark.is_drift
    assert dark.metrics["p_value"] == 1 / 200
    assert dark.metrics["auroc_old_against_new"] > 0.9
    assert dark.document["outside_support"]["share"] > 0.3

    manifest = verify_dir(tmp_path / "b/drift", Kind.DRIFT)
    assert set(manifest.files) == {"drift.json", "images.csv", "report.html"}
    assert manifest.inputs["bundle"] == verify_dir(bundle, Kind.BUNDLE).content_digest
    assert json.loads((tmp_path / "b/drift/drift.json").read_text()) == dark.document
    page = (tmp_path / "b/report.html").read_text()
    assert page == (tmp_path / "b/drift/report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == OPTIONS["n_shown"]
    assert len((tmp_path / "b/drift/images.csv").read_text().splitlines()) == 1 + N_NEW
    assert not re.search(r"<script|href=|https?://", page)

    again = _compare(bundle, tmp_path / "dark", tmp_path / "c")
    assert again.document == dark.document
    assert (tmp_path / "c/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()


def test_near_duplicates_and_images_of_a_folder_count_once(bundle: Path, tmp_path: Path) -> None:
    folder = write_new_images(tmp_path / "new", count=20)
    for number in range(5):
        shutil.copyfile(folder / f"{number:03d}.png", folder / f"copy{number}.png")
    found = _compare(bundle, folder, tmp_path / "a").document
    assert (found["n_read"], found["n_groups"], found["n_compared"]) == (25, 20, 20)

    # The copies in the top folder unite three of the ten drives with it.
    for number in range(20):
        (folder / f"drive{number // 2}").mkdir(exist_ok=True)
        shutil.move(folder / f"{number:03d}.png", folder / f"drive{number // 2}")
    with pytest.raises(DataError, match=r"25 images in 8 groups \(unit=folder\), a test needs"):
        _compare(bundle, folder, tmp_path / "b", unit="folder")


def test_what_cannot_be_decoded_is_counted_and_named(bundle: Path, tmp_path: Path) -> None:
    folder = write_new_images(tmp_path / "new", count=20)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not read")
    (folder / ".hidden.png").write_bytes(b"not read")
    found = _compare(bundle, folder, tmp_path / "a").document
    assert (found["n_listed"], found["n_read"], found["n_rejected"]) == (21, 20, 1)
    assert found["rejected"].startswith("broken.jpg (not an image")


def test_no_more_images_are_read_and_compared_than_asked_for(bundle: Path, tmp_path: Path) -> None:
    folder = write_new_images(tmp_path / "new")
    found = _compare(bundle, folder, tmp_path / "a", max_images=30, max_groups=20).document
    assert (found["n_listed"], found["n_read"], found["n_compared"]) == (N_NEW, 30, 20)


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ({"images": "/nowhere"}, r"images='/nowhere' does not exist"),
        ({"images": ""}, r"images is not set; give a folder or s3://bucket/prefix"),
        ({"reference": "no/such/folder"}, r"reference='no/such/folder' is no folder; give"),
        ({"reference": "champion"}, r"no registry of bundles is named; set STREETVISION_BUNDLE_"),
    ],
)
def test_places_that_are_not_there_are_refused_in_one_line(
    bundle: Path, tmp_path: Path, places: dict[str, str], says: str
) -> None:
    images = write_new_images(tmp_path / "new", count=2)
    with pytest.raises((ConfigError, DataError), match=says) as caught:
        _compare(bundle, images, tmp_path / "a", **places)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a/drift").exists()


def test_an_empty_folder_and_too_few_groups_are_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images; is the prefix right"):
        _compare(bundle, tmp_path / "empty", tmp_path / "a")
    few = write_new_images(tmp_path / "few", count=FEWEST_GROUPS - 1)
    with pytest.raises(DataError, match=r"15 images in 15 groups .* needs at least 16"):
        _compare(bundle, few, tmp_path / "a")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 images can be decoded, such as a\.jpg: empty"):
        _compare(bundle, tmp_path / "broken", tmp_path / "a")


def _with_reference(bundle: Path, path: Path, **changes: object) -> Path:
    found = dataclasses.replace(open_bundle(bundle).drift_reference(), **changes)  # type: ignore[arg-type]
    return resigned(bundle, path, lambda out: write_reference(out / "reference", found))


def test_a_reference_of_another_backbone_is_refused(bundle: Path, tmp_path: Path) -> None:
    images = write_new_images(tmp_path / "new", count=20)
    reference = open_bundle(bundle).drift_reference()
    other = _with_reference(bundle, tmp_path / "other", probe=reference.probe[::-1].copy())
    with pytest.raises(ArtifactError, match=r"reference image differ by .*another backbone"):
        _compare(other, images, tmp_path / "a")

    half = reference.features.shape[1] // 2
    narrow = _with_reference(
        bundle,
        tmp_path / "narrow",
        probe=reference.probe[:half],
        features=reference.features[:, :half],
        support=reference.support[:, :half],
    )
    with pytest.raises(ArtifactError, match="has 32 features of an image, the model 64; another"):
        _compare(narrow, images, tmp_path / "a")


def test_bundles_without_a_reference_or_with_a_small_one_are_refused(
    bundle: Path, tmp_path: Path
) -> None:
    images = write_new_images(tmp_path / "new", count=20)
    old = resigned(bundle, tmp_path / "old", lambda out: shutil.rmtree(out / "reference"))
    with pytest.raises(ArtifactError, match=r"has no reference/ .*; export the bundle again"):
        _compare(old, images, tmp_path / "a")

    reference = open_bundle(bundle).drift_reference()
    small = _with_reference(
        bundle,
        tmp_path / "small",
        features=reference.features[:9],
        logits=reference.logits[:9],
        labels=reference.labels[:9],
    )
    with pytest.raises(ArtifactError, match="has 9 groups of VAL_CALIB, a test needs at least 16"):
        _compare(small, images, tmp_path / "a")


def test_bundle_and_images_may_be_stored(
    bundle: Path, tmp_path: Path, s3: StoreSettings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion, a digest of the registry, and a prefix; the images below a prefix."""
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    store = Store(s3)
    folder = write_new_images(tmp_path / "new", count=20)
    for file in folder.iterdir():
        store.put(bucket, f"tonight/{file.name}", file)
    images = f"s3://{bucket}/tonight"
    upload_artifact(store, bundle, bucket, "bundles/mine", kind=Kind.BUNDLE)
    found = _compare(f"s3://{bucket}/bundles/mine", images, tmp_path / "a")  # type: ignore[arg-type]

    registry = BundleRegistry(store, bucket, "registry")
    address = {"bundle_registry": f"s3://{bucket}/registry"}
    digest = registry.put_bundle(bundle)
    by_digest = _compare(digest[:12], images, tmp_path / "b", **address)  # type: ignore[arg-type]
    assert by_digest.document == found.document
    with pytest.raises(DataError, match="has no champion yet; promote a bundle, or give one as"):
        _compare("champion", images, tmp_path / "c", **address)
    registry.decide(
        Draft(kind="first", promoted=True, challenger=digest, reason="the first one"), None
    )
    of_champion = _compare("champion", images, tmp_path / "c", **address)  # type: ignore[arg-type]
    assert of_champion.document == found.document

    with pytest.raises(DataError, match="holds no objects; is the prefix right"):
        _compare(bundle, f"s3://{bucket}/other", tmp_path / "d")
