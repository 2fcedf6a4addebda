"""The document of a classifier gives the same specification back, or a typed error."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.errors import ArtifactError
from components.shared.vision.classifier_spec import ClassifierSpec, read_spec
from components.shared.vision.view_spec import ViewSpec

_VIEWS = ViewSpec(2, 0.25, True, 224, "lse", 3, 1.0, "b")
_SPEC = ClassifierSpec(("a", "b"), 224, (0, 0, 0), (1, 1, 0.5), "dinov2")


@pytest.mark.parametrize("views", [None, _VIEWS])
def test_a_document_gives_the_same_document_back(views: ViewSpec | None, tmp_path: Path) -> None:
    spec = ClassifierSpec(*list(vars(_SPEC).values())[:-1], views)
    text = json.dumps(spec.to_json())
    (tmp_path / "classifier.json").write_text(text)
    assert read_spec(tmp_path) == spec
    # Integers stay integers, so that bytes repeat.
    assert json.dumps(read_spec(tmp_path).to_json()) == text


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": "64"},
        {"image_size": 0},
        {"image_size": -5},
        {"image_size": 64.5},
        {"image_size": 100_000},
        {"image_std": [0, 0, 0]},
        {"image_std": 0.5},
        {"image_mean": [0.5]},
        {"image_mean": [0.5, 0.5, None]},
        {"class_names": []},
        {"class_names": "ab"},
        {"class_names": [["a"], ["b"]]},
        {"backbone_type": 5},
        {"views": {"a": 1}},
        {"views": [1]},
        {"views": _VIEWS.__dict__ | {"grid": 10**9}},
        {"views": _VIEWS.__dict__ | {"aggregation": "mean"}},
        {"views": _VIEWS.__dict__ | {"sharpness": 0}},
        {"views": _VIEWS.__dict__ | {"overlap": 1}},
        {"other": 5},
    ],
)
def test_other_values_are_refused_with_their_key(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "classifier.json").write_text(json.dumps(_SPEC.to_json() | change))
    with pytest.raises(ArtifactError, match=f"classifier.json: .*{next(iter(change))}"):
        read_spec(tmp_path)


@pytest.mark.parametrize("text", ["[]", "5", "{", "[" * 50_000, '{"image_size": 224}', ""])
def test_other_documents_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "classifier.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"classifier\.json: "):
        read_spec(tmp_path)
