"""A backbone arrives whole and in safetensors from every place it may be at, or not at all."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from components.import_backbone.config import ImportBackboneConfig
from components.import_backbone.step import run
from components.shared.contracts.artifacts import sha256_file, verify_dir
from components.shared.contracts.errors import (
    ConfigError,
    DataError,
    StreetVisionError,
    TransientError,
)
from components.shared.models.backbone import image_statistics
from components.shared.storage import Store, StoreSettings
from tests.bundles import edit_json, edit_weights
from tests.components.conftest import write_backbone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backbone with statistics of its own, its licence, and what does not belong to it."""
    place = tmp_path / "folder"
    write_backbone(place)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
    (place / "preprocessor_config.json").write_text(json.dumps(statistics))
    (place / "LICENSE").write_text("Apache-2.0")
    (place / "pytorch_model.bin").write_bytes(b"a pickle")
    (place / "notes.txt").write_text("private")
    (place / "manifest.json").write_text("{}")
    return place


def _import(source: object, out: Path) -> dict[str, Any]:
    run(ImportBackboneConfig(backbone=str(source)), pretrained=out)
    return verify_dir(out, "Backbone").summary


def test_a_folder_is_copied_with_its_preprocessing_and_licence_and_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    summary = _import(folder, tmp_path / "backbone")
    names = {file.name for file in (tmp_path / "backbone").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "LICENSE",
        "manifest.json",
    }
    assert sha256_file(folder / "model.safetensors") == sha256_file(
        tmp_path / "backbone/model.safetensors"
    )
    assert image_statistics(str(tmp_path / "backbone")) == ((0.1, 0.2, 0.3), (1, 2, 3))
    n_parameters = sum(
        tensor.numel() for tensor in load_file(folder / "model.safetensors").values()
    )
    assert summary == {"source": str(folder), "type": "dinov2", "parameters": n_parameters}


def test_the_store_and_shards_give_the_same_weights(
    folder: Path, s3: StoreSettings, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    for file in (tmp_path / "sharded").iterdir():
        Store(s3).put(bucket, f"models/tiny/{file.name}", file)
    place = f"s3://{bucket}/models/tiny"
    assert _import(place, tmp_path / "backbone")["source"] == place
    ours, theirs = (
        AutoModel.from_pretrained(tmp_path / "backbone"),
        AutoModel.from_pretrained(folder),
    )
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    with pytest.raises(DataError, match="holds no objects"):
        _import(f"s3://{bucket}/models/ti", tmp_path / "other")


def test_the_hub_gives_a_snapshot_whose_commit_is_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Path(shutil.copytree(folder, tmp_path / "snapshots/0123abcd"))
    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **options: asked.append((name, options)) or str(snapshot),
    )
    assert _import("org/tiny", tmp_path / "backbone")["source"] == "org/tiny@0123abcd"
    assert asked[0][0] == "org/tiny"
    assert not any(
        pattern.endswith((".bin", ".pt")) or pattern == "*"
        for pattern in asked[0][1]["allow_patterns"]
    )


def test_the_hub_is_never_asked_for_a_mistyped_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backbones/dino").mkdir(parents=True)

    for mistyped in ("backbnes/dino", "backbones/dno", "dino", "./backbones/dno", "a/b/c"):
        with pytest.raises(DataError, match=r"does not exist as a folder.*hf://"):
            _import(mistyped, tmp_path / "backbone")
    assert asked == []


_RESPONSE = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            GatedRepoError("x", response=_RESPONSE),
            DataError,
            "is gated: accept its licence .* HF_TOKEN",
        ),
        (RepositoryNotFoundError("x", response=_RESPONSE), DataError, "the hub has no such model"),
        (
            LocalEntryNotFoundError("no network"),
            TransientError,
            "the hub does not deliver: no network",
        ),
        (ConnectionError("reset"), TransientError, "the hub does not deliver: reset"),
    ],
)
def test_what_the_hub_refuses_is_told_from_what_it_does_not_deliver_now(
    error: Exception,
    kind: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(kind, match=message):
        _import("org/tiny", tmp_path / "backbone")
    assert not (tmp_path / "backbone").exists()


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _without_a_block(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _leading_out(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        '{"metadata": {}, "weight_map": {"w": "../../secret.safetensors"}}'
    )


def _of_another_shape(folder: Path) -> None:
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | {"hidden_size": 16}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "has no config.json; it is not a Hugging Face model folder",
        ),
        (
            _without_weights,
            (
                "has no model.safetensors, only pytorch_model.bin, which is never unpickled;"
                " convert it"
            ),
        ),
        (_without_a_block, r"lacks 18 weight\(s\), first 'encoder.layer.1"),
        (
            _truncated,
            "model.safetensors has [0-9,]+ bytes, its header needs [0-9,]+; copy it again",
        ),
        (_of_another_shape, r"weight\(s\) of another shape, first 'embeddings"),
        (
            _leading_out,
            r"must name .safetensors files beside it, not \['../../secret.safetensors'\]",
        ),
    ],
)
def test_what_is_no_backbone_is_refused_and_leaves_nothing(
    damage: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message):
        _import(folder, tmp_path / "backbone")
    assert {entry.name for entry in tmp_path.iterdir()} == {"folder"}


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("", ConfigError, "backbone='' is not set"),
        ("/nowhere/model", DataError, "backbone='/nowhere/model' does not exist"),
        ("a/b/c", DataError, "does not exist as a folder, and a hub id is owner/name"),
    ],
)
def test_a_place_that_cannot_be_is_refused(
    source: str, kind: type[StreetVisionError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        _import(source, tmp_path / "backbone")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: edit_json(folder / "config.json", auto_map={"AutoModel": "evil/repo--m.M"}),
        lambda folder: edit_json(folder / "config.json", hidden_act="zzz"),
        lambda folder: edit_json(folder / "config.json", num_hidden_layers=1),
        lambda folder: edit_json(folder / "preprocessor_config.json", image_std=[0, 0, 0]),
        lambda folder: (folder / "config.json").write_text("[" * 50_000),
        lambda folder: edit_weights(
            folder / "model.safetensors", lambda t: {n: v / 0 for n, v in t.items()}
        ),
        lambda folder: edit_weights(
            folder / "model.safetensors", lambda t: {n: v.int() for n, v in t.items()}
        ),
    ],
)
def test_messages_name_the_place_that_the_user_gave(
    damage: Any,
    folder: Path,
    s3: StoreSettings,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.to_environment().items():
        monkeypatch.setenv(name, value)
    damage(folder)
    for file in folder.iterdir():
        Store(s3).put(bucket, f"models/{file.name}", file)
    for place in (str(folder), f"s3://{bucket}/models"):
        with pytest.raises(DataError, match=f"^backbone='{place}'") as caught:
            _import(place, tmp_path / "backbone")
        assert "partial" not in str(caught.value)
        assert {entry.name for entry in tmp_path.iterdir()} == {"folder"}


def test_a_licence_that_is_a_link_out_of_the_folder_is_not_copied(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="LICENSE is a link out of the folder"):
        _import(folder, tmp_path / "backbone")
    assert not (tmp_path / "backbone").exists()
