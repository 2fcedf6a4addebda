"""A model folder passes whole, or is refused with the file and the remedy."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from components.shared.contracts.errors import DataError
from components.shared.model_files.folder import screen, screen_adapter
from tests.bundles import edit_json, edit_weights
from tests.components.conftest import write_backbone

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_backbone(tmp_path / "model")
    return tmp_path / "model"


def _screen(folder: Path, others: tuple[str, ...] | None = ()) -> Any:
    return screen(folder, "model", others=others, error=DataError)


def _index(weight_map: Any) -> Callable[[Path], object]:
    text = (
        weight_map
        if isinstance(weight_map, str)
        else json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return lambda folder: (folder / INDEX).write_text(text)


def _sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(2**40)


def _shard(folder: Path, **options: Any) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(
        folder.parent / "sharded", max_shard_size="20KB", **options
    )
    shutil.rmtree(folder)
    (folder.parent / "sharded").rename(folder)


def test_the_files_of_a_model_and_nothing_else_are_named(folder: Path) -> None:
    for name in ("LICENSE", "README.md", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    found = _screen(folder, others=None)
    assert set(found.names) == {
        "config.json",
        "model.safetensors",
        "LICENSE",
        "README.md",
        "preprocessor_config.json",
    }
    with pytest.raises(DataError, match=r"^model holds 'pytorch_model.bin', not a file of a model"):
        _screen(folder)
    assert _screen(folder, others=("pytorch_model.bin",)) == found


def test_shards_pass_with_their_index(folder: Path) -> None:
    whole = _screen(folder)
    _shard(folder)
    found = _screen(folder)
    assert found.tensors.keys() == whole.tensors.keys()
    assert len(found.names) > 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json; it is not a Hugging Face"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json must be a JSON object"),
        (lambda f: (f / "config.json").write_bytes(b"\xff{"), "config.json: not UTF-8"),
        (lambda f: (f / "config.json").write_text("[" * 50_000), "config.json: nested deeper"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors$"),
        (
            _index({"a": "../x.safetensors"}),
            r"must name .safetensors files beside it, not \['\.\./",
        ),
        (_index({"a": "/etc/x.safetensors"}), "must name .safetensors files beside it"),
        (_index({"a": "..safetensors"}), "must name .safetensors files beside it"),
        (_index({"a": "pytorch_model.bin"}), "must name .safetensors files beside it"),
        (_index({}), "must name .safetensors files beside it, not '0 files'"),
        (_index({"a": 5}), "is not an index of weights"),
        (_index('{"weight_map": {"a": "a.safetensors"}}'), "is not an index of weights"),
        (_index("[]"), "is not an index of weights"),
        (_index("[" * 50_000), "index.json: nested deeper"),
        (_index({"a": "q.safetensors"}), "has no q.safetensors"),
        (_index({"layernorm.weight": "model.safetensors"}), "disagrees with its shards about"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers=200), "=200, but the weights"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "holds 'adapter_config.json'"),
        (lambda f: (f / "m.py").write_text("print(1)"), "holds 'm.py'"),
        (lambda f: (f / "x").mkdir(), "holds 'x'"),
        (lambda f: (f / "x").symlink_to("/etc"), "holds 'x'"),
        (lambda f: (f / "LICENSE").symlink_to("/etc/passwd"), "LICENSE is a link out of the"),
        (lambda f: (f / "LICENSE").symlink_to("LICENSE"), "LICENSE cannot be read"),
        (lambda f: (f / "LICENSE").symlink_to("gone"), "LICENSE cannot be read"),
        (lambda f: (f / "README.md").mkdir(), "README.md is not a regular file"),
        (lambda f: _sparse(f / "LICENSE"), "LICENSE has 1,099,511,627,776 bytes, more than"),
        (lambda f: os.mkfifo(f / "LICENSE"), "LICENSE is not a regular file"),
        (lambda f: (f / "config.json").write_bytes(b" " * 2**25), "config.json has .* bytes, more"),
        (
            lambda f: edit_weights(
                f / "model.safetensors", lambda t: {"a": t["layernorm.bias"] / 0}
            ),
            "'a' has values that are not finite",
        ),
    ],
)
def test_what_is_refused_names_the_file_of_the_folder(
    damage: Callable[[Path], object], message: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=f"^model.*{message}"):
        _screen(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder that can be read"):
        _screen(tmp_path / "nowhere")


def test_a_snapshot_of_the_hubs_cache_is_followed_into_its_blobs_only(
    folder: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots/0123", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(folder.iterdir()):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert len(_screen(snapshot).names) == 2
    (snapshot / "LICENSE").symlink_to("../../../outside")
    (tmp_path / "outside").write_text("secret")
    with pytest.raises(DataError, match="LICENSE is a link out of the folder"):
        _screen(snapshot)


def test_an_adapter_folder_is_its_two_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert list(screen_adapter(tmp_path, "adapter")) == ["a"]
    elsewhere = {"base_model_name_or_path": "evil-org/evil-model"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(elsewhere))
    with pytest.raises(DataError, match="has base_model_name_or_path='evil-org/evil-model'"):
        screen_adapter(tmp_path, "adapter", error=DataError)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(DataError, match="must be a JSON object"):
        screen_adapter(tmp_path, "adapter", error=DataError)
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(DataError, match="must hold adapter_config"):
        screen_adapter(tmp_path, "adapter", error=DataError)
    with pytest.raises(DataError, match="is no folder that can be read"):
        screen_adapter(tmp_path / "nowhere", "adapter", error=DataError)
