"""The choice by a real bundle, from a folder and from a store, and what is refused."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from components.select_for_labelling.component import select_for_labelling
from components.select_for_labelling.config import SelectForLabellingConfig
from components.select_for_labelling.step import run
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import verify_dir
from components.shared.contracts.errors import ArtifactError, ConfigError, DataError
from components.shared.serving.bundle import open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.storage import Store, StoreSettings
from tests.components.conftest import TinyRun


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs in two folders, a near-duplicate, a broken file and a text."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        place = folder / f"day{number % 2}"
        place.mkdir(exist_ok=True)
        coarse.resize((160, 120)).save(place / f"{number:02d}.jpg", quality=95)
    with Image.open(folder / "day0/00.jpg") as image:
        image.save(folder / "day1/again.jpg", quality=60)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with (path / "selection.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_bundles_answers_choose_and_annotate(
    tiny: TinyRun, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tasks"
    config = SelectForLabellingConfig(bundle=str(tiny.bundle), images=str(photos), n_images=5)
    counts = run(config, labelling_tasks=out)
    assert counts == {
        "n_listed": 14,
        "n_read": 13,
        "n_rejected": 1,
        "n_groups": 12,
        "n_chosen": 5,
        "n_chosen_deferred": 0,
    }

    manifest = verify_dir(out, Kind.LABELLING_TASKS)
    bundle = open_bundle(tiny.bundle)
    assert list(manifest.inputs) == ["bundle"]
    assert list(json.loads((out / "summary.json").read_text())["rejected"]) == ["broken.jpg"]
    rows = _rows(out)
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert {row["reason"] for row in rows} == {"uncertain"}
    assert not {"day0/00.jpg", "day1/again.jpg"} <= {row["path"] for row in rows}

    predictor = Predictor(bundle)
    tasks = json.loads((out / "label_studio.json").read_text())
    assert [task["data"]["path"] for task in tasks] == [row["path"] for row in rows]
    for row, task in zip(rows, tasks, strict=True):
        pixels = predictor.pixels((photos / row["path"]).read_bytes())[None]
        (answer,) = predictor.answers(pixels)
        assert row["decision"] == answer.decision
        probabilities = bundle.policy.probabilities(predictor.logits(pixels))[0]
        assert float(row["probability"]) == pytest.approx(probabilities.max(), abs=1e-5)
        (prediction,) = task["predictions"]
        assert prediction["result"][0]["value"]["choices"] == [row["predicted"]]
        assert prediction["score"] == float(row["probability"])


def test_the_components_places_stand_above_those_of_its_options(
    tiny: TinyRun, photos: Path, tmp_path: Path
) -> None:
    logged: dict[str, float] = {}
    select_for_labelling.python_func(
        labelling_tasks=SimpleNamespace(path=str(tmp_path / "tasks")),
        metrics=SimpleNamespace(path=str(tmp_path / "metrics"), log_metric=logged.__setitem__),
        config={"n_images": 3, "images": "nowhere"},
        bundle=str(tiny.bundle),
        images=str(photos),
    )
    assert logged["n_chosen"] == len(_rows(tmp_path / "tasks")) == 3


def test_images_and_bundle_of_a_store(
    tiny: TinyRun,
    photos: Path,
    tmp_path: Path,
    s3: StoreSettings,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    store = Store(s3)
    for folder, prefix in ((photos, "new"), (tiny.bundle, "bundle")):
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                store.put(bucket, f"{prefix}/{file.relative_to(folder).as_posix()}", file)

    config = SelectForLabellingConfig(
        bundle=f"s3://{bucket}/bundle", images=f"s3://{bucket}/new", n_images=3
    )
    run(config, labelling_tasks=tmp_path / "stored")
    tasks = json.loads((tmp_path / "stored/label_studio.json").read_text())
    assert all(task["data"]["image"].startswith(f"s3://{bucket}/new/day") for task in tasks)

    local = SelectForLabellingConfig(bundle=str(tiny.bundle), images=str(photos), n_images=3)
    run(local, labelling_tasks=tmp_path / "local")
    assert _rows(tmp_path / "stored") == _rows(tmp_path / "local")


def test_what_cannot_be_judged_is_refused_in_one_line(
    tiny: TinyRun, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    shutil.copy(photos / "broken.jpg", tmp_path / "broken")
    bundle = str(tiny.bundle)
    cases: list[tuple[dict[str, str], type[Exception], str]] = [
        ({}, ConfigError, "images is not set; give a folder"),
        ({"images": str(tmp_path / "empty")}, DataError, "holds no images; is the prefix right"),
        ({"images": str(tmp_path / "broken")}, DataError, "none of 1 images can be decoded"),
        ({"images": str(tmp_path / "none")}, DataError, "does not exist; is the path right"),
        ({"images": str(photos), "bundle": "nowhere"}, ConfigError, "bundle='nowhere' is no"),
        ({"images": str(photos), "bundle": str(tmp_path)}, ArtifactError, "manifest.json"),
    ]
    for options, error, message in cases:
        config = SelectForLabellingConfig(**({"bundle": bundle} | options))  # type: ignore[arg-type]
        with pytest.raises(error, match=message):
            run(config, labelling_tasks=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_without_a_champion_the_error_says_so(
    photos: Path,
    tmp_path: Path,
    s3: StoreSettings,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    config = SelectForLabellingConfig(images=str(photos), bundle_registry=f"s3://{bucket}/registry")
    with pytest.raises(DataError, match="has no champion yet; promote a bundle"):
        run(config, labelling_tasks=tmp_path / "out")
