"""The import document of Label Studio, as its documentation describes it."""

import xml.etree.ElementTree as ET

import pytest

from components.select_for_labelling.label_studio import address_of, labelling_interface, task


def test_a_task_has_an_image_and_a_pre_annotation_that_the_interface_knows() -> None:
    found = task("s3://photos/new/", "night 1/a.jpg", "Roadwork", 0.75, "3f2a9c1b7d4e")
    assert found["data"]["image"] == "s3://photos/new/night 1/a.jpg"
    (prediction,) = found["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("3f2a9c1b7d4e", 0.75)
    (result,) = prediction["result"]

    interface = ET.fromstring(labelling_interface(["None", 'Road & "work"', "Roadwork"]))
    choices, image = interface.find("Choices"), interface.find("Image")
    assert choices is not None
    assert image is not None
    assert (choices.get("name"), choices.get("toName")) == (result["from_name"], result["to_name"])
    assert (image.get("name"), image.get("value")) == (result["to_name"], "$image")
    values = [choice.get("value") for choice in choices]
    assert values == ["None", 'Road & "work"', "Roadwork"]
    assert result["value"]["choices"][0] in values
    assert result["type"] == "choices"


@pytest.mark.parametrize(
    ("images", "given", "expected"),
    [
        ("s3://photos/new", "", "s3://photos/new/"),
        ("photos", "", "/data/local-files/?d="),
        ("photos", "/data/local-files/?d=photos/", "/data/local-files/?d=photos/"),
        ("s3://photos/new", "https://cdn.example/new", "https://cdn.example/new/"),
    ],
)
def test_the_address_is_where_label_studio_finds_the_images(
    images: str, given: str, expected: str
) -> None:
    assert address_of(images, given) == expected


def test_names_are_quoted_in_addresses_that_are_urls() -> None:
    assert task("https://a/", "b c/ä.jpg", "x", 1, "m")["data"] == {
        "image": "https://a/b%20c/%C3%A4.jpg",
        "path": "b c/ä.jpg",
    }
