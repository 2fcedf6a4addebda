"""Ingest on real street scenes, and on one file of each broken kind."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest
from components.shared.contracts.errors import DataError
from components.shared.data.dataset import Dataset
from components.shared.data.decode import ImageRejectedError
from components.shared.data.splits import SPLITS, read_splits
from components.shared.serving.bundle import open_bundle
from components.shared.serving.predictor import Predictor
from components.split_dataset.config import SplitConfig
from components.split_dataset.step import run as split
from tests.bundles import SIZE, make_inputs

KNOWN_LEAKS = (("00613", "00881"), ("00607", "00899"), ("00612", "00885"), ("00606", "00897"))


def png(size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


def small(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").rotate(number * 40).resize((48, 48)).convert("RGB").save(
        buffer, "JPEG"
    )
    return buffer.getvalue()


BROKEN: dict[str, tuple[bytes | None, str]] = {
    "empty.jpg": (b"", "empty file"),
    "text.jpg": (b"<html>404 Not Found</html>", "not an image in a supported format"),
    "cut.jpg": (small(1)[: len(small(1)) // 2], "truncated or corrupt"),
    "header_only.jpg": (small(1)[:30], "not an image|truncated"),
    "cut.png": (png()[:-20], "truncated or corrupt"),
    "zeros.jpg": (bytes(500), "not an image"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "huge.png": (png((60, 60)), "more than max_pixels=2500"),
    "missing.jpg": (None, "file does not exist"),
}


def test_every_kind_of_broken_file_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    contents = {name: data for name, (data, _) in BROKEN.items()}
    good = {f"{number}.jpg": small(number) for number in range(4)}
    lines = ["path,label"]
    for number, (name, data) in enumerate({**contents, **good}.items()):
        lines.append(f"{name},{number % 2}")
        if data is not None:
            (folder / name).write_bytes(data)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = IngestConfig(data=str(folder), image_size=32, max_pixels=2500, max_reject_fraction=0.9)
    ingest(config, dataset=tmp_path / "dataset")
    with (tmp_path / "dataset/rejects.csv").open(newline="", encoding="utf-8") as stream:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    assert reasons.keys() == BROKEN.keys()
    for name, (_, reason) in BROKEN.items():
        assert re.search(reason, reasons[name]), (name, reasons[name])
    assert len(Dataset.open(tmp_path / "dataset").samples) == 4


def scene(number: int, kind: str = "JPEG", **options: object) -> bytes:
    """A small picture that is no near-duplicate of another number's."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels).resize((48, 36)).convert(str(options.pop("mode", "RGB")))
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def write_tree(root: Path, n_images: int, classes: tuple[str, ...]) -> None:
    """A folder per class with `n_images` pictures in all."""
    for number in range(n_images):
        file = root / classes[number % len(classes)] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(scene(number))


def test_suffixes_that_do_not_match_the_content_are_no_reason_to_refuse(tmp_path: Path) -> None:
    """29 of 600 photographs from the web were WebP or PNG under the name .jpg."""
    write_tree(tmp_path / "web", 600, ("Plain", "Pothole"))
    for number in range(0, 580, 20):
        file = next((tmp_path / "web").glob(f"*/{number}.jpg"))
        file.write_bytes(scene(number, "WEBP" if number % 3 else "PNG"))
    ingest(IngestConfig(data=str(tmp_path / "web"), image_size=16), dataset=tmp_path / "dataset")
    data = Dataset.open(tmp_path / "dataset")
    assert len(data.samples) == 600
    assert data.manifest.summary["n_rejected"] == 0


def odd_files() -> dict[str, bytes]:
    """Files whose name, mode or content is unusual, or that cannot be read."""
    wide = np.linspace(0, 65535, 48 * 36).astype(">u2").reshape(36, 48)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = {
        "png_inside.jpg": scene(1, "PNG"),
        "webp_inside.jpg": scene(2, "WEBP"),
        "jpeg_inside.png": scene(3),
        "photo.jpg_large": scene(4),
        "no_suffix": scene(5, "GIF"),
        "a.ppm": scene(6, "PPM"),
        "a.pgm": scene(7, "PPM", mode="L"),
        "wide.pgm": b"P5 48 36 65535\n" + wide.tobytes(),
        "a.pbm": scene(8, "PPM", mode="1"),
        "palette.png": scene(9, "PNG", mode="P"),
        "alpha.png": scene(10, "PNG", mode="RGBA"),
        "print.tif": scene(11, "TIFF", mode="CMYK"),
        "turned.jpg": scene(12, exif=exif),
        "table.jpg": b"path,label\n",
        "short.ppm": scene(13, "PPM")[:-40],
        "float.pfm": b"Pf 1 1 -1.0\n" + bytes(4),
        "cut.webp": scene(14, "WEBP")[:60],
        "empty.jpg": b"",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    return {name: found[name] for name in sorted(found)}


def test_ingest_and_predict_accept_the_same_files_and_see_the_same_pixels(tmp_path: Path) -> None:
    folder, files = tmp_path / "data", odd_files()
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rows = [f"{name},{number % 2}" for number, name in enumerate(files)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    config = IngestConfig(
        data=str(folder), image_size=SIZE, max_reject_fraction=0.9, near_duplicate_distance=0
    )
    ingest(config, dataset=tmp_path / "ingested")
    data = Dataset.open(tmp_path / "ingested")
    pixels = data.images(np.arange(len(data.samples)))
    stored = {sample.path: image for sample, image in zip(data.samples, pixels, strict=True)}

    predictor = Predictor(open_bundle(make_inputs(tmp_path).export(tmp_path / "bundle")))
    for name, content in files.items():
        if name in stored:
            assert np.array_equal(stored[name], predictor.pixels(content)), name
        else:
            with pytest.raises(ImageRejectedError):
                predictor.pixels(content)
    refused = {"table.jpg", "short.ppm", "float.pfm", "cut.webp", "empty.jpg", "postscript.jpg"}
    assert files.keys() - stored.keys() == refused


def test_an_error_names_twenty_files_and_the_table_has_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "data", 200, ("a", "b"))
    for file in (tmp_path / "data").rglob("*.jpg"):
        file.write_bytes(b"RAW")
    with pytest.raises(DataError, match=r"200 of 200 images are unusable") as caught:
        ingest(IngestConfig(data=str(tmp_path / "data")), dataset=tmp_path / "dataset")
    message = str(caught.value)
    assert message.count("not an image") == 1
    assert message.count(".jpg") == 20
    assert " and 180 more " in message
    table = tmp_path / "dataset.rejects.csv"
    assert f"(all of them: {table})" in message
    with table.open(newline="", encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 200
    assert "not an image" not in capsys.readouterr().out  # the error says it, and only it

    shutil.rmtree(tmp_path / "data")
    write_tree(tmp_path / "data", 8, ("a", "b"))
    ingest(IngestConfig(data=str(tmp_path / "data")), dataset=tmp_path / "dataset")
    assert not table.exists()


def test_rejects_below_the_limit_are_printed_once_and_the_first_twenty_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "data", 60, ("a", "b"))
    for number in range(30):
        (tmp_path / f"data/{'ab'[number % 2]}/{number}.jpg").write_bytes(b"")
    config = IngestConfig(data=str(tmp_path / "data"), max_reject_fraction=0.6)
    ingest(config, dataset=tmp_path / "dataset")
    printed = capsys.readouterr().out
    assert printed.count("empty file") == 20
    assert "and 10 more, in rejects.csv and duplicates.csv" in printed


def test_what_every_label_means_is_printed_and_recorded_for_every_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tree(tmp_path / "own", 6, ("street", "unclear", "works"))
    write_tree(tmp_path / "natix/images", 5, ("x",))
    rows = [f"images/x/{number}.jpg,{(0, 1, 1, 0, -1)[number]}" for number in range(5)]
    (tmp_path / "natix/labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    own = {"street": "None", "works": "Roadwork", "unclear": "exclude"}
    config = IngestConfig(
        data=str(tmp_path / "natix"),
        extra_sources=json.dumps([{"data": str(tmp_path / "own"), "label_map": own}]),
        image_size=32,
    )
    ingest(config, dataset=tmp_path / "dataset")
    printed = capsys.readouterr().out
    assert (
        "classes (from label_map): 0 None, 1 Roadwork\n"
        "labels of natix:\n  0 -> None: 2\n  1 -> Roadwork: 2\n  -1 -> exclude: 1\n"
        "labels of own:\n  street -> None: 2\n  works -> Roadwork: 2\n  unclear -> exclude: 2\n"
    ) in printed
    recorded = Dataset.open(tmp_path / "dataset").manifest.summary["labels"]
    assert recorded[0] == {"source": "natix", "label": "0", "class": "None", "count": 2}
    assert len(recorded) == 6


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (("Plain", "Pothole"), ("Plain", "Pothole")),
        (("Roadwork", "None"), ("None", "Roadwork")),
        (("speed_limit_30", "a_right_of_way_at_the_next_intersection", "stop"), None),
    ],
)
def test_a_folder_per_class_goes_through_ingest_and_split_without_a_parameter(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    classes: tuple[str, ...],
    names: tuple[str, ...] | None,
) -> None:
    write_tree(tmp_path / "photos", 300, classes)
    ingest(
        IngestConfig(data=str(tmp_path / "photos"), image_size=32, near_duplicate_distance=0),
        dataset=tmp_path / "dataset",
    )
    split(SplitConfig(), dataset=tmp_path / "dataset", splits=tmp_path / "splits")
    data = Dataset.open(tmp_path / "dataset")
    assert data.class_names == (names or tuple(sorted(classes)))
    assert all(data.class_names[s.label] == s.path.split("/")[0] for s in data.samples)

    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in data.class_names)


def write_class_label(path: Path, of_image: list[str], names: list[str]) -> None:
    """Parquet with the metadata that `datasets` 5.2.0 writes."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    rows = [
        {"image": {"bytes": scene(i), "path": f"{name}{i}.jpg"}, "label": names.index(name)}
        for i, name in enumerate(of_image)
    ]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), path)


def test_three_layouts_of_the_same_photographs_give_the_same_samples(tmp_path: Path) -> None:
    names = ["Plain", "Pothole"]
    write_tree(tmp_path / "tree", 40, tuple(names))
    listed = [file.relative_to(tmp_path / "tree") for file in (tmp_path / "tree").rglob("*.jpg")]
    shutil.copytree(tmp_path / "tree", tmp_path / "table")
    rows = [f"{file.as_posix()},{file.parts[0]}" for file in listed]
    (tmp_path / "table/labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    write_class_label(tmp_path / "hub.parquet", [names[i % 2] for i in range(40)], names)

    found = []
    for source in ("tree", "table", "hub.parquet"):
        config = IngestConfig(data=str(tmp_path / source), image_size=16)
        ingest(config, dataset=tmp_path / f"{source}.dataset")
        data = Dataset.open(tmp_path / f"{source}.dataset")
        found.append({sample.sample_id: data.class_names[sample.label] for sample in data.samples})
    assert len(found[0]) == 40
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("names", [["Roadwork", "None"], ["None", "Roadwork"]])
def test_class_label_is_never_inverted(tmp_path: Path, names: list[str]) -> None:
    """38 images of roadwork and 22 without, named by ClassLabel in either order."""
    of_image = ["Roadwork"] * 38 + ["None"] * 22
    write_class_label(tmp_path / "photos.parquet", of_image, names)
    config = IngestConfig(data=str(tmp_path / "photos.parquet"), image_size=32)
    ingest(config, dataset=tmp_path / "dataset")
    data = Dataset.open(tmp_path / "dataset")
    assert data.class_names == ("None", "Roadwork")
    assert data.manifest.summary["n_per_class"] == {"None": 22, "Roadwork": 38}
    assert all(sample.path.startswith(data.class_names[sample.label]) for sample in data.samples)


def test_the_known_leaks_of_real_scenes_end_in_one_split(gtsdb: Path, tmp_path: Path) -> None:
    ingest(IngestConfig(data=str(gtsdb), image_size=64), dataset=tmp_path / "dataset")
    split(SplitConfig(), dataset=tmp_path / "dataset", splits=tmp_path / "splits")
    with (tmp_path / "dataset/duplicates.csv").open(newline="", encoding="utf-8") as stream:
        found = {
            (Path(row["path_a"]).stem, Path(row["path_b"]).stem): row["kind"]
            for row in csv.DictReader(stream)
        }
    assert found[KNOWN_LEAKS[0]] == "exact"
    data, splits = Dataset.open(tmp_path / "dataset"), read_splits(tmp_path / "splits")
    of = {
        Path(data.samples[data.index[i]].path).stem: name
        for name in SPLITS
        for i in splits.ids(name)
    }
    for first, second in KNOWN_LEAKS[1:]:
        assert found[first, second] == "near"
        assert of[first] == of[second]
    assert len({"00613", "00881"} & of.keys()) == 1
    assert len(of) == 867
