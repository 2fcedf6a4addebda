"""One row for each image, in order; what was scored before an interruption is not scored again."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from components.score_images import scoring
from components.score_images.config import ScoreImagesConfig
from components.score_images.step import run
from components.shared.contracts.artifacts import read_manifest, verify_dir
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    TransientError,
)
from components.shared.serving.answer import Answer
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.storage import Store, StoreSettings
from pipelines.sources import ROOT
from tests.bundles import onnx_bundle
from tests.components.conftest import write_source

BUNDLE = ROOT / "tests/golden/schema1/bundle"
N_IMAGES, PER_PART = 23, 5
KILLED = """
import os, signal, sys
from pathlib import Path
from components.score_images import scoring
from components.score_images.config import ScoreImagesConfig
from components.score_images.step import run
scoring.PART_IMAGES, n_added = 5, 0
add = scoring.FinishedParts.add
def add_some(*given):
    global n_added
    n_added += 1
    if n_added > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return add(*given)
scoring.FinishedParts.add = add_some
images, bundle, scores = sys.argv[1:]
run(ScoreImagesConfig(images=images), bundle=Path(bundle), scores=Path(scores))
"""
Scored = list[dict[str, Any]]


class _Brightness:
    """A predictor without a model: it answers from the mean of the pixels.

    It counts what it is asked, and fails after `most` images. What it stands for, `Predictor`, is
    compared with the rows below.
    """

    def __init__(self, bundle: Bundle, most: int | None = None) -> None:
        self.most, self.n_answered = most, 0
        self._size = bundle.spec.image_size

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        from components.shared.data.decode import decode_resized

        return decode_resized(data, size=self._size)

    def answers(self, pixels: npt.NDArray[np.uint8]) -> list[Answer]:
        self.n_answered += len(pixels)
        if self.most is not None and self.n_answered > self.most:
            raise TransientError("planted")
        means = pixels.mean(axis=(1, 2, 3)) / 255
        return [
            Answer("Roadwork" if mean > 0.5 else ["None", "Roadwork"], mean, 0.5, views=9)
            for mean in means.tolist()
        ]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """23 images and a copy, of which one is damaged, and a file that is none."""
    write_source(tmp_path / "images", N_IMAGES)
    (tmp_path / "images/img/007.jpg").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _Brightness]:
    """Put a predictor without a model in place, and parts of five images."""
    monkeypatch.setattr(scoring, "PART_IMAGES", PER_PART)

    def put(most: int | None = None) -> _Brightness:
        made = _Brightness(open_bundle(BUNDLE), most)
        monkeypatch.setattr(scoring, "open_predictor", lambda *_: made)
        return made

    put()
    return put


def scored(images: Path | str, scores: Path) -> dict[str, Any]:
    return run(ScoreImagesConfig(images=str(images)), bundle=BUNDLE, scores=scores)


def rows_of(scores: Path) -> Scored:
    rows: Scored = pq.read_table(scores / "scores.parquet").to_pylist()
    return rows


def test_rows_are_the_answers_of_the_predictor(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored(images, tmp_path / "scores")
    rows = rows_of(tmp_path / "scores")
    files = sorted(file for file in images.rglob("*") if file.suffix == ".jpg")
    assert [row["path"] for row in rows] == [file.relative_to(images).as_posix() for file in files]
    (rejected,) = (row for row in rows if row["error"] is not None)
    assert rejected["path"] == "img/007.jpg"
    assert rejected["error"].startswith("not an image in a supported format")
    assert rejected["decision"] is rejected["probability"] is rejected["views"] is None

    predictor = Predictor(open_bundle(BUNDLE))
    read = [file for file in files if file.name != "007.jpg"]
    answers = predictor.answers(np.stack([predictor.pixels(file.read_bytes()) for file in read]))
    answered = [row for row in rows if row["error"] is None]
    assert [row["decision"] for row in answered] == [answer.decision for answer in answers]
    np.testing.assert_allclose(
        [row["probability"] for row in answered],
        [answer.probability for answer in answers],
        atol=2e-6,
    )

    assert (found["n_images"], found["n_rejected"]) == (len(files), 1)
    assert sum(found["decisions"].values()) == len(read)
    manifest = verify_dir(tmp_path / "scores", "Scores")
    assert manifest.summary == found
    assert manifest.inputs == {"bundle": read_manifest(BUNDLE).content_digest}
    assert f"1 of {len(files)} cannot be read: img/007.jpg" in capsys.readouterr().out
    metadata = pq.read_schema(tmp_path / "scores/scores.parquet").metadata
    assert metadata[b"bundle"].decode() == read_manifest(BUNDLE).content_digest


def test_an_interrupted_step_scores_no_part_twice_and_writes_the_same_bytes(
    images: Path,
    tmp_path: Path,
    light: Callable[..., _Brightness],
    capsys: pytest.CaptureFixture[str],
) -> None:
    scored(images, tmp_path / "whole")
    light(most=12)
    with pytest.raises(TransientError, match="planted"):
        scored(images, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()

    again = light()
    scored(images, tmp_path / "scores")
    whole = (tmp_path / "whole/scores.parquet").read_bytes()
    assert (tmp_path / "scores/scores.parquet").read_bytes() == whole
    # The damaged image was among those of the earlier attempt.
    assert again.n_answered == N_IMAGES + 1 - 2 * PER_PART
    assert "10 of 24 images were scored by an earlier attempt" in capsys.readouterr().out
    assert not (tmp_path / ".checkpoints").exists()


def test_images_that_were_added_or_changed_are_scored(
    images: Path, tmp_path: Path, light: Callable[..., _Brightness]
) -> None:
    light(most=12)
    with pytest.raises(TransientError):
        scored(images, tmp_path / "scores")
    (images / "img/zzz.jpg").write_bytes((images / "img/001.jpg").read_bytes())
    (images / "img/008.jpg").write_bytes((images / "img/002.jpg").read_bytes())

    again = light()
    scored(images, tmp_path / "scores")
    assert again.n_answered == N_IMAGES + 1 - PER_PART  # the first part only is as it was
    rows = {row["path"]: row for row in rows_of(tmp_path / "scores")}
    assert rows["img/008.jpg"]["probability"] == rows["img/002.jpg"]["probability"]
    assert "img/zzz.jpg" in rows


def test_sets_views_and_names_that_are_no_text(
    images: Path, tmp_path: Path, light: Callable[..., _Brightness]
) -> None:
    image = (images / "img/000.jpg").read_bytes()
    Path(tmp_path, "images", b"\xff.jpg".decode("utf-8", "surrogateescape")).write_bytes(image)
    found = scored(images, tmp_path / "scores")
    rows = rows_of(tmp_path / "scores")
    assert {row["decision"] for row in rows} == {None, "Roadwork", "None or Roadwork"}
    assert {row["views"] for row in rows} == {None, 9}
    (unnamed,) = (row for row in rows if row["path"] == r"\udcff.jpg")
    assert "not UTF-8" in unnamed["error"]
    assert found["n_rejected"] == 2


def test_another_machine_goes_on_from_the_store(
    images: Path,
    tmp_path: Path,
    light: Callable[..., _Brightness],
    monkeypatch: pytest.MonkeyPatch,
    s3: StoreSettings,
    bucket: str,
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Variable.CHECKPOINT_STORE, f"s3://{bucket}/checkpoints")
    store = Store(s3)
    for file in images.rglob("*.jpg"):
        store.put(bucket, f"new/{file.name}", file)

    light(most=17)
    with pytest.raises(TransientError):
        scored(f"s3://{bucket}/new", tmp_path / "one/scores")
    again = light()
    scored(f"s3://{bucket}/new", tmp_path / "two/scores")
    assert again.n_answered < N_IMAGES - PER_PART
    assert len(rows_of(tmp_path / "two/scores")) == N_IMAGES + 1
    assert not [item for item in store.list(bucket) if item.key.startswith("checkpoints/")]


def test_a_form_without_torch_answers_alike(
    images: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = onnx_bundle(tmp_path_factory)
    config = ScoreImagesConfig(images=str(images), form="onnx")
    run(config, bundle=bundle, scores=tmp_path / "onnx")
    run(ScoreImagesConfig(images=str(images)), bundle=bundle, scores=tmp_path / "transformers")
    found, expected = (rows_of(tmp_path / form) for form in ("onnx", "transformers"))
    assert [row["decision"] for row in found] == [row["decision"] for row in expected]
    assert pq.read_schema(tmp_path / "onnx/scores.parquet").metadata[b"form"] == b"onnx"
    with pytest.raises(ArtifactError, match="has no onnx/; export it with formats"):
        run(config, bundle=BUNDLE, scores=tmp_path / "scores")


def test_what_cannot_be_scored_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images is not set"):
        scored("", tmp_path / "scores")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        scored(tmp_path / "empty", tmp_path / "scores")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        run(ScoreImagesConfig(images=str(images)), bundle=tmp_path, scores=tmp_path / "scores")


@pytest.mark.slow
def test_a_killed_step_goes_on_and_gives_the_same_bytes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PART_IMAGES", PER_PART)
    scored(images, tmp_path / "whole")
    arguments = [str(images), str(BUNDLE), str(tmp_path / "scores")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / ".checkpoints").glob("*/part-*"))) == 2

    scored(images, tmp_path / "scores")
    whole = (tmp_path / "whole/scores.parquet").read_bytes()
    assert (tmp_path / "scores/scores.parquet").read_bytes() == whole
