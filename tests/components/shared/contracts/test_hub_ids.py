"""A path with a spelling mistake is no hub id."""

from pathlib import Path

import pytest

from components.shared.contracts.errors import DataError
from components.shared.contracts.hub_ids import hub_id


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that has backbones/dino."""
    (tmp_path / "backbones/dino").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("facebook/dinov2-small", "facebook/dinov2-small"),
        ("hf://facebook/dinov2-small", "facebook/dinov2-small"),
        ("hf://backbones/dino", "backbones/dino"),
        ("backbones/dino", None),
        ("./backbones/dino", None),
        ("notes.txt", None),
        ("s3://backbones/dino", None),
    ],
)
def test_an_id_is_one_and_what_exists_is_none(backbone: str, expected: str | None) -> None:
    assert hub_id(backbone) == expected


@pytest.mark.parametrize(
    "backbone",
    ["backbnes/dino", "backbones/dinov2", "backbone/dino", "Backbones/dino"],
)
def test_a_mistyped_folder_is_refused_with_both_readings(backbone: str) -> None:
    says = rf"'{backbone}' does not exist as a folder.*'backbones' here.*hf://{backbone}"
    with pytest.raises(DataError, match=says):
        hub_id(backbone)


@pytest.mark.parametrize(
    "backbone",
    [
        "dino",
        "./missing/dino",
        "/missing/dino",
        "../dino",
        "~/backbones/dino",
        "a/b/c",
        "a/b/",
        "C:\\models\\dino",
        "https://host/dino",
        "hf:/a/b",
        "a b/c",
        "a/b\n",
        "x" * 5000,
        "\0",
    ],
)
def test_what_looks_like_a_path_is_refused_with_both_readings(backbone: str) -> None:
    with pytest.raises(DataError, match=r"does not exist as a folder, .*hf://owner/name"):
        hub_id(backbone)


@pytest.mark.parametrize("backbone", ["hf://", "hf://dino", "hf://a/b/c", "hf:///etc/passwd"])
def test_an_id_with_the_scheme_has_an_owner_and_a_name(backbone: str) -> None:
    with pytest.raises(DataError, match="is no hub id, which is hf://owner/name"):
        hub_id(backbone)
