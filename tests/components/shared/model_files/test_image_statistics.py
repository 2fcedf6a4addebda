"""Recorded statistics of images: three numbers each, or a typed error."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.errors import DataError
from components.shared.model_files.image_statistics import image_statistics

_STATISTICS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}


def _read(folder: Path, document: Any, name: str = "preprocessor_config.json") -> Any:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return image_statistics(folder, "model", error=DataError)


def test_the_recorded_values_are_returned(tmp_path: Path) -> None:
    assert _read(tmp_path, _STATISTICS) == ((0.1, 0.2, 0.3), (1, 2, 3))


def test_values_that_are_not_recorded_are_imagenets(tmp_path: Path) -> None:
    expected = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert image_statistics(tmp_path, "model") == expected
    assert _read(tmp_path, {"image_mean": None}) == expected


def test_a_processor_of_the_newer_form_comes_first(tmp_path: Path) -> None:
    _read(tmp_path, {"image_mean": [1, 1, 1]})
    nested = {"image_processor": _STATISTICS}
    assert _read(tmp_path, nested, "processor_config.json")[0] == (0.1, 0.2, 0.3)
    assert _read(tmp_path, {"size": 5}, "processor_config.json")[0] == (1, 1, 1)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 50_000, "nested deeper"),
        ([], "must be a JSON object"),
        ({"image_mean": 0.5}, "image_mean=0.5"),
        ({"image_mean": "abc"}, "image_mean='abc'"),
        ({"image_mean": [0.5, 0.5]}, "image_mean="),
        ({"image_mean": [0.5, "0.5", 0.5]}, "image_mean="),
        ({"image_std": [0, 0, 0]}, "image_std=.*greater than or equal to"),
        ({"image_std": [1, 1, 1e-300]}, "image_std="),
        ({"image_std": [1, 1, -1]}, "image_std="),
        ({"image_std": [10**400, 1, 1]}, "an integer beyond a double"),
        ({"auto_map": {"AutoImageProcessor": "m.P"}}, "has auto_map="),
    ],
)
def test_other_values_are_refused_with_file_and_key(
    document: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"^model: preprocessor_config.json.*{message}"):
        _read(tmp_path, document)


def test_code_in_a_nested_processor_is_refused(tmp_path: Path) -> None:
    nested = {"image_processor": {"auto_map": {"AutoImageProcessor": "m.P"}}}
    with pytest.raises(DataError, match=r"processor_config.json has auto_map"):
        _read(tmp_path, nested, "processor_config.json")
