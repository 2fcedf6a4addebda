"""`predict --explain`: where pictures go, and what the answers say of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.shared.contracts.errors import ConfigError
from components.shared.serving import predict
from components.shared.serving.explained_images import Pictures
from tests.bundles import make_inputs, write_images


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explained")
    return make_inputs(root / "inputs", threshold_margin=1.0).export(root / "bundle")


def _run(capsys: pytest.CaptureFixture[str], *given: object) -> tuple[int, list[dict[str, Any]]]:
    with pytest.raises(SystemExit) as ended:
        predict.main([str(part) for part in given])
    return int(ended.value.code or 0), [
        json.loads(line) for line in capsys.readouterr().out.splitlines()
    ]


def test_every_kind_of_image_gets_its_picture_in_a_folder(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "kinds")
    images = [image for image in images if image.name in ("grey.png", "turned.jpg", "wide.webp")]
    (tmp_path / "text.jpg").write_text("no image")
    given = [*images, tmp_path / "text.jpg", images[0]]
    code, lines = _run(capsys, "--explain", tmp_path / "why", "--batch-size", "2", bundle, *given)
    assert code == 42  # one is no image
    assert "explanation" not in lines[-2]
    explained = [line for line in lines if "error" not in line]
    assert len(explained) == len(images) + 1
    for line in explained:
        found = line["explanation"]
        total = found["patches"] + found["cls"] + found["constant"]
        assert found["margin"] == pytest.approx(total, abs=3e-6)
        assert (found["margin"] > 0) is (line["decision"] == found["outcome"])
        assert 0 <= found["cls_share"] <= 1
        with Image.open(found["file"]) as picture:
            assert (picture.format, picture.size) == ("PNG", (1100, 539))
    files = [Path(line["explanation"]["file"]).name for line in explained]
    assert files == [*(f"{image.stem}.png" for image in images), f"{images[0].stem}-2.png"]
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == sorted(files)


def test_equal_answers_give_equal_bytes(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_images(tmp_path / "kinds")[0]
    for name in ("a.png", "b.png"):
        code, lines = _run(capsys, "--explain", tmp_path / name, bundle, image)
        assert code == 0
        assert lines[0]["explanation"]["file"] == str(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_the_option_nothing_is_explained(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_images(tmp_path / "kinds")[0]
    _, lines = _run(capsys, bundle, image)
    assert "explanation" not in lines[0]


@pytest.mark.parametrize(
    ("target", "images", "message"),
    [
        ("why.png", ["a.jpg", "b.jpg"], "is one picture, and there are 2 images; use a folder"),
        ("why.jpg", ["a.jpg"], "explanations are PNG; use why.png or a folder"),
        ("absent/why.png", ["a.jpg"], "absent' is no folder; make it first"),
        ("bundle/why.png", ["a.jpg"], "is inside the bundle, whose files are sealed"),
        ("bundle", ["a.jpg", "b.jpg"], "is inside the bundle, whose files are sealed"),
        ("a.png", ["a.png"], "would overwrite the image .*a.png'; use another"),
        (".", ["a.png", "b.jpg"], "would overwrite the image .*a.png'; use another"),
        ("file", ["a.jpg", "b.jpg"], "cannot be a folder"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused_before_any_work(
    target: str,
    images: list[str],
    message: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    given = [tmp_path / image for image in images]
    with pytest.raises(ConfigError, match=message) as refused:
        Pictures.planned(tmp_path / target, given, tmp_path / "bundle")
    assert "\n" not in str(refused.value)


def test_stems_that_differ_in_case_alone_get_two_files(tmp_path: Path) -> None:
    images = [Path("a/X.jpg"), Path("b/x.jpg"), Path("x-2.jpg"), Path("c/x.png")]
    files = Pictures.planned(tmp_path / "why", images, tmp_path / "bundle").files
    assert [file.name for file in files.values()] == ["X.png", "x-2.png", "x-2-2.png", "x-3.png"]
