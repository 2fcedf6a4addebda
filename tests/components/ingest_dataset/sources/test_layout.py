"""Which files are a CSV's, Parquet, or a folder per class, and what is not clear enough."""

import pytest

from components.ingest_dataset.sources.layout import Layout, layout_of
from components.shared.contracts.errors import DataError


def test_a_table_takes_precedence() -> None:
    folders = ["a/1.jpg", "b/1.jpg"]
    assert layout_of([*folders, "labels.csv", "x.parquet"]).layout is Layout.CSV
    assert layout_of([*folders, "x.parquet", "deep/y.parquet"]).tables == [
        "deep/y.parquet",
        "x.parquet",
    ]
    assert layout_of(["mine.csv"], "mine.csv").tables == ["mine.csv"]


def test_a_folder_is_a_class_however_deep_its_images_are() -> None:
    names = [
        "Plain/1.jpg",
        "Plain/day 2/3.JPG",
        "Pothole/x/y/z.webp",
        "Pothole/x/y/photo.jpg_large",
    ]
    beside = ["README.md", "Pothole/x/y/annotations.csv", "Plain/notes.txt", "scripts/rename.py"]
    hidden = ["Plain/.DS_Store", ".git/config", "__MACOSX/Plain/._1.jpg", "Plain/"]
    found = layout_of(names + beside + hidden)
    assert found.layout is Layout.FOLDERS
    assert found.images == {name: name.split("/")[0] for name in names}
    assert found.left_out == sorted(beside)
    assert not found.parts


def test_parts_of_the_data_are_no_classes() -> None:
    found = layout_of(["train/Plain/1.jpg", "train/Pothole/2.jpg", "test/Plain/3.jpg"])
    assert found.images == {
        "train/Plain/1.jpg": "Plain",
        "train/Pothole/2.jpg": "Pothole",
        "test/Plain/3.jpg": "Plain",
    }
    assert found.parts
    # Beside other folders, "train" is what can be seen on the photographs.
    vehicles = layout_of(["train/1.jpg", "bus/2.jpg"])
    assert set(vehicles.images.values()) == {"train", "bus"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds neither labels.csv nor Parquet files nor a folder of images per class; list"),
        (["1.jpg", "2.jpg"], "(2 images without labels); list path and label of every image"),
        (["a/1.txt", "b/2.py"], "holds neither labels.csv nor Parquet files"),
        (["images/1.jpg", "images/2.jpg"], "'images' is the only folder with images"),
        (
            ["all/Plain/1.jpg", "all/Pothole/1.jpg"],
            "give the folder that holds the classes' folders",
        ),
        (["train/Plain/1.jpg", "test/Plain/1.jpg"], "Plain' is the only folder with images"),
        (["train/1.jpg", "test/2.jpg"], "test, train are parts of the data, not classes"),
        (["a/1.jpg", "b/2.jpg", "3.jpg"], "1 images are in no class's folder (3.jpg); move them"),
        (["a/1.jpg", "b/2.jpg", "marks.csv"], "has marks.csv but no labels.csv; name the table"),
        (["a/1.jpg", "b/2.jpg", "a/labels.csv"], "in a folder below (a/labels.csv)"),
    ],
)
def test_what_is_not_clear_is_refused_with_a_remedy(names: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        layout_of(names)
    assert message in str(caught.value)
