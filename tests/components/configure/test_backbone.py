"""A backbone that the import would refuse is refused before the data are read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.configure.backbone import check_backbone
from components.configure.config import ConfigureConfig
from components.configure.step import run
from components.shared.contracts.errors import ConfigError, DataError
from components.shared.storage import Store, StoreSettings
from tests.model_folder import write_model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model_folder(tmp_path / "backbone")
    return tmp_path / "backbone"


def _config(**values: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(
        json.dumps({"model_type": "dinov2", "num_hidden_layers": 1} | values)
    )


def _weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\xc0\x7f")  # NaN


_DOCUMENTS = [
    (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    (_config(model_type="bert"), "is a 'bert', supported: "),
    (_config(auto_map={"AutoModel": "m.M"}), "config.json has auto_map="),
    (_config(patch_size=0), "config.json: patch_size"),
    (_config(hidden_act="zzz"), "config.json: hidden_act"),
    (
        lambda folder: (folder / "preprocessor_config.json").write_text('{"image_std": [0, 0, 0]}'),
        "preprocessor_config.json: image_std=",
    ),
    (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "has no model.safetensors, only pytorch_model.bin",
    ),
]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *_DOCUMENTS,
        (_weights, "model.safetensors: 'a' has values that are not finite"),
        (lambda folder: (folder / "LICENSE").symlink_to("/etc/passwd"), "LICENSE is a link out of"),
    ],
)
def test_a_run_with_a_wrong_folder_ends_in_its_first_step(
    damage: Callable[[Path], object], message: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    form = ConfigureConfig(data=str(tmp_path / "data"), backbone=str(folder))
    run(form)
    damage(folder)
    with pytest.raises(DataError, match=f"^backbone='{folder}'.*{message}"):
        run(form)


def test_a_size_without_whole_patches_ends_in_the_first_step(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    _config(patch_size=14)(folder)
    assert check_backbone(str(folder)) == 14
    form = ConfigureConfig(data=str(tmp_path / "data"), backbone=str(folder), input_size="200")
    with pytest.raises(ConfigError, match=r"input_size=200 is no multiple of .* 14; use 196$"):
        run(form)


def test_a_file_is_no_folder_and_the_hub_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"a pickle")
    with pytest.raises(DataError, match="is no folder that can be read"):
        check_backbone(str(tmp_path / "model.bin"))
    check_backbone("org/name")


def test_of_a_stored_model_the_documents_are_read(
    folder: Path,
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    store = Store(s3)

    def stored(number: int, change: Callable[[Path], object]) -> str:
        place = tmp_path / str(number)
        write_model_folder(place)
        change(place)
        for file in place.iterdir():
            store.put(bucket, f"models/{number}/{file.name}", file)
        return f"s3://{bucket}/models/{number}"

    check_backbone(stored(99, lambda folder: None))
    for number, (damage, message) in enumerate(_DOCUMENTS):
        with pytest.raises(DataError, match=f"^backbone='s3://.*{message}"):
            check_backbone(stored(number, damage))
    with pytest.raises(DataError, match=r"config.json has 16,777,217 bytes, more than"):
        check_backbone(
            stored(98, lambda folder: (folder / "config.json").write_bytes(b" " * (2**24 + 1)))
        )
