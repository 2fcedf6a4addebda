"""Extended pre-training on tiny data: the result, its inputs, and equality after interruptions."""

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from kfp import dsl
from kfp.dsl.types.type_utils import InconsistentTypeException
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from components.import_backbone.component import import_backbone
from components.ingest_dataset.component import ingest_dataset
from components.pretrain_explora import verify
from components.pretrain_explora.component import pretrain_explora
from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.step import run
from components.pretrain_explora.verify import differences
from components.shared.contracts.artifacts import sha256_file, verify_dir
from components.shared.contracts.errors import (
    ArtifactError,
    ConfigError,
    LeakageViolationError,
    PermanentError,
)
from components.shared.data.dataset import Dataset
from components.shared.data.splits import read_splits
from components.shared.data.train_images import TrainImages, write_train_images
from components.shared.models.backbone import exact_tokens
from components.split_dataset.component import split_dataset
from components.train_baseline.component import train_baseline
from components.train_gate.component import train_gate
from tests.bundles import edit_json
from tests.components.conftest import TinyRun
from tests.components.shared.data.test_train_images import signed_again

CONFIG = PretrainExploraConfig(
    explora_objective="dino",
    explora_rank=8,
    epochs=2,
    global_batch_size=16,
    explora_prototypes=32,
    explora_head_width=32,
    explora_local_crops=2,
    explora_decoder_width=32,
    learning_rate=1e-3,
    ema_decay=0.95,
    n_processes=1,
)


def changed(**changes: object) -> PretrainExploraConfig:
    return dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]


def pretrain(
    tiny: TinyRun, config: PretrainExploraConfig, out: Path, images: Path | None = None
) -> dict[str, float]:
    return run(
        config, train_images=images or tiny.train_images, pretrained=tiny.backbone, adapted=out
    )


@pytest.fixture(scope="module")
def adapted(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explora") / "adapted"
    metrics = pretrain(tiny, CONFIG, out)
    assert metrics["trainable_parameters"] > 0
    return out


def test_the_result_is_a_backbone_whose_merging_was_verified_from_disk(
    tiny: TinyRun, adapted: Path
) -> None:
    manifest = verify_dir(adapted, "Backbone")
    assert set(manifest.inputs) == {"train_images", "pretrained"}
    assert manifest.summary["max_difference"].keys() == {"merged", "adapter"}
    assert max(manifest.summary["max_difference"].values()) <= 1e-6
    share = manifest.summary["trainable_parameters"] / manifest.summary["parameters"]
    assert manifest.summary["trainable_fraction"] == pytest.approx(share, abs=1e-6)
    before, after = (AutoModel.from_pretrained(path).eval() for path in (tiny.backbone, adapted))
    with_adapter = PeftModel.from_pretrained(
        AutoModel.from_pretrained(tiny.backbone), adapted / "adapter"
    ).eval()
    pixels = (
        torch.from_numpy(TrainImages.open(tiny.train_images).images(np.arange(3))).permute(
            0, 3, 1, 2
        )
        / 255
    )
    with torch.no_grad():
        first, second, third = (
            m(pixel_values=pixels).last_hidden_state for m in (before, after, with_adapter)
        )
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(third, second, rtol=0, atol=1e-5)


def test_it_names_no_place_on_the_machine_that_made_it(tiny: TinyRun, adapted: Path) -> None:
    for file in [
        adapted / "config.json",
        adapted / "adapter/adapter_config.json",
        adapted / "training.json",
    ]:
        assert str(tiny.root) not in file.read_text()


def test_the_course_is_recorded_per_epoch(adapted: Path) -> None:
    with (adapted / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(
        float(row[name]) > 0
        for row in rows
        for name in ("feature_variance", "teacher_entropy", "information")
    )


def test_two_processes_with_small_micro_batches_train_the_backbone_of_one(
    tiny: TinyRun, adapted: Path, tmp_path: Path
) -> None:
    pretrain(tiny, changed(n_processes=2, micro_batch_size=3), tmp_path / "two")
    start, one, two = (
        load_file(p / "model.safetensors") for p in (tiny.backbone, adapted, tmp_path / "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-4)
    assert max(float((start[name] - value).abs().max()) for name, value in one.items()) > 1e-3


def test_masked_autoencoding_is_the_same_on_two_processes(tiny: TinyRun, tmp_path: Path) -> None:
    for n in (1, 2):
        pretrain(tiny, changed(explora_objective="mae", n_processes=n), tmp_path / str(n))
    one, two = (load_file(tmp_path / f"{n}/model.safetensors") for n in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-4)
    rows = (tmp_path / "1/metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,train/loss,train/lr,feature_variance"
    losses = [float(row.split(",")[1]) for row in rows[1:]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("objective", ["dino", "mae"])
def test_crops_are_as_large_as_asked_and_at_most_as_the_images(
    tiny: TinyRun, tmp_path: Path, objective: str
) -> None:
    found = {}
    for size in (28, 224, 2048):
        config = changed(explora_objective=objective, explora_crop_size=size, epochs=1)
        pretrain(tiny, config, tmp_path / f"{size}")
        found[size] = sha256_file(tmp_path / f"{size}/model.safetensors")
    assert found[28] != found[224] == found[2048]
    with pytest.raises(ConfigError, match="of 27 is less than 2 x 2 patches of 14 pixels"):
        pretrain(tiny, changed(explora_crop_size=27), tmp_path / "x")


@pytest.mark.parametrize("objective", ["dino", "mae"])
def test_bf16_leads_where_fp32_does(tiny: TinyRun, tmp_path: Path, objective: str) -> None:
    for precision in ("fp32", "bf16"):
        pretrain(
            tiny, changed(explora_objective=objective, precision=precision), tmp_path / precision
        )
    start, wide, half = (
        torch.cat(
            [value.flatten() for _, value in sorted(load_file(path / "model.safetensors").items())]
        )
        for path in (tiny.backbone, tmp_path / "fp32", tmp_path / "bf16")
    )
    assert (half != wide).any()
    assert torch.cosine_similarity(half - start, wide - start, dim=0) > 0.8


def test_training_again_gives_the_same_bytes(tiny: TinyRun, adapted: Path, tmp_path: Path) -> None:
    pretrain(tiny, CONFIG, tmp_path / "adapted")
    files = verify_dir(adapted, "Backbone").files
    assert {name: sha256_file(tmp_path / "adapted" / name) for name in files} == {
        name: entry["sha256"] for name, entry in files.items()
    }


@pytest.mark.parametrize("objective", ["dino", "mae"])
def test_labels_are_learned_where_they_are_an_input_and_said_to_be(
    tiny: TinyRun, tmp_path: Path, objective: str
) -> None:
    config = changed(explora_objective=objective, epochs=8, learning_rate=3e-3)
    data = Dataset.open(tiny.dataset)
    rows = np.array([data.index[i] for i in read_splits(tiny.splits).ids("TRAIN")])
    labels = np.array([data.samples[row].label for row in rows])
    pixels = torch.from_numpy(data.images(rows)).permute(0, 3, 1, 2).float() / 255
    apart = {}
    for labelled in (False, True):
        out = tmp_path / str(labelled)
        run(
            dataclasses.replace(config, use_labeled_data=labelled),
            train_images=tiny.train_images,
            pretrained=tiny.backbone,
            adapted=out,
            train_labels=tiny.train_labels if labelled else None,
        )
        with torch.no_grad():
            cls = (
                AutoModel.from_pretrained(out)
                .eval()(pixel_values=pixels)
                .last_hidden_state[:, 0]
                .numpy()
            )
        between = cls[labels == 1].mean(axis=0) - cls[labels == 0].mean(axis=0)
        apart[labelled] = np.square(between).sum() / cls.var(axis=0).sum()
        assert ("train_labels" in verify_dir(out, "Backbone").inputs) == labelled
    assert apart[True] > 1.1 * apart[False]


def test_labels_must_be_both_given_and_asked_for(tiny: TinyRun, tmp_path: Path) -> None:
    inputs = {
        "train_images": tiny.train_images,
        "pretrained": tiny.backbone,
        "adapted": tmp_path / "x",
    }
    with pytest.raises(
        LeakageViolationError, match=r"train_labels are an input .* use_labeled_data=false"
    ):
        run(CONFIG, **inputs, train_labels=tiny.train_labels)
    with pytest.raises(ConfigError, match="use_labeled_data=true needs the input train_labels"):
        run(changed(use_labeled_data=True), **inputs)
    with pytest.raises(LeakageViolationError, match="this step may only see 'TRAIN'"):
        run(changed(use_labeled_data=True), **inputs, train_labels=tiny.val_test_logits)
    other = Path(shutil.copytree(tiny.train_labels, tmp_path / "other"))
    lines = (other / "train_labels.csv").read_text().splitlines(keepends=True)
    (other / "train_labels.csv").write_text("".join(lines[:-1]))
    signed_again(other)
    with pytest.raises(ArtifactError, match="has labels of other images"):
        run(changed(use_labeled_data=True), **inputs, train_labels=other)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["dataset", "splits", "val_test_logits", "checkpoint"])
def test_what_is_not_train_images_is_refused_when_it_runs(
    tiny: TinyRun, tmp_path: Path, name: str
) -> None:
    with pytest.raises(LeakageViolationError, match="this step may only see 'TRAIN'"):
        pretrain(tiny, CONFIG, tmp_path / "x", getattr(tiny, name))
    assert not list(tmp_path.iterdir())


def test_images_of_another_split_and_labels_are_refused_however_they_are_called(
    tiny: TinyRun, tmp_path: Path
) -> None:
    data = Dataset.open(tiny.dataset)
    test_images = Path(shutil.copytree(tiny.train_images, tmp_path / "val"))
    shutil.rmtree(test_images / "images")
    write_train_images(test_images, data, [sample.sample_id for sample in data.samples[:20]])
    header = json.loads((test_images / "train_images.json").read_text())
    (test_images / "train_images.json").write_text(json.dumps(header | {"split": "VAL_TEST"}))
    signed_again(test_images)
    labelled = Path(shutil.copytree(tiny.dataset, tmp_path / "labelled"))
    signed_again(labelled, kind="TrainImages", split="TRAIN")
    for images in (test_images, labelled):
        with pytest.raises(LeakageViolationError):
            pretrain(tiny, CONFIG, tmp_path / "x", images)
    with pytest.raises(ArtifactError, match="kind is 'Checkpoint'"):
        run(
            CONFIG,
            train_images=tiny.train_images,
            pretrained=tiny.checkpoint,
            adapted=tmp_path / "x",
        )


@pytest.mark.parametrize("other", ["dataset", "splits"])
def test_wiring_labels_into_pre_training_does_not_compile(other: str) -> None:
    with pytest.raises(InconsistentTypeException, match="TrainImages"):

        @dsl.pipeline(name="leak")
        def leak() -> None:
            dataset = ingest_dataset(config={}).outputs["dataset"]
            backbone = import_backbone(config={}).outputs["pretrained"]
            splits = split_dataset(dataset=dataset, config={}).outputs["splits"]
            found = {"dataset": dataset, "splits": splits}[other]
            pretrain_explora(train_images=found, pretrained=backbone, config={})


def test_wiring_predictions_on_val_test_into_pre_training_does_not_compile() -> None:
    with pytest.raises(InconsistentTypeException, match=r"ValTestLogits.*TrainImages"):

        @dsl.pipeline(name="leak")
        def leak() -> None:
            dataset = ingest_dataset(config={}).outputs["dataset"]
            backbone = import_backbone(config={}).outputs["pretrained"]
            splits = split_dataset(dataset=dataset, config={}).outputs["splits"]
            train = train_baseline(dataset=dataset, splits=splits, backbone=backbone, config={})
            checkpoint = train.outputs["checkpoint"]
            gate = train_gate(dataset=dataset, splits=splits, checkpoint=checkpoint, config={})
            pretrain_explora(
                train_images=gate.outputs["val_test_logits"], pretrained=backbone, config={}
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"explora_unfrozen_blocks": 2},
            "explora_unfrozen_blocks=2 of a backbone with 2 blocks; give 1 to 1",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    tiny: TinyRun, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain(tiny, changed(**changes), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_collapsed_training_ends_with_a_permanent_error(tiny: TinyRun, tmp_path: Path) -> None:
    # Its own teacher at every step, and nothing that spreads the features.
    config = changed(
        learning_rate=5e-3,
        ema_decay=None,
        explora_koleo_weight=0.0,
        explora_centering="center",
    )
    with pytest.raises(
        PermanentError,
        match=r"pre-training collapsed: .* at the start; lower pretrain_explora.learning_rate",
    ):
        pretrain(tiny, config, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_merged_backbone_that_differs_is_found(
    tiny: TinyRun, adapted: Path, tmp_path: Path
) -> None:
    backbone = AutoModel.from_pretrained(adapted).eval()
    data = Dataset.open(tiny.dataset)
    pixels = torch.from_numpy(data.images(np.arange(2))).permute(0, 3, 1, 2).float() / 255
    tokens = exact_tokens(backbone, pixels)
    save_file(
        {"pixels": pixels.contiguous(), "tokens": tokens.contiguous()},
        tmp_path / "probe.safetensors",
    )
    found = differences(tiny.backbone, adapted, tmp_path / "probe.safetensors")
    assert max(found.values()) <= 1e-6
    damaged = Path(shutil.copytree(adapted, tmp_path / "damaged"))
    weights = load_file(damaged / "model.safetensors")
    weights["layernorm.weight"] *= 1.01
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    found = differences(tiny.backbone, damaged, tmp_path / "probe.safetensors")
    assert found["merged"] > 1e-4
    assert found["adapter"] <= 1e-6


def test_an_adapter_that_leads_elsewhere_ends_the_verification_for_good(
    tiny: TinyRun, adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"pixels": torch.ones(1), "tokens": torch.ones(1)}, tmp_path / "probe.safetensors")
    damaged = Path(shutil.copytree(adapted, tmp_path / "damaged"))
    edit_json(damaged / "adapter/adapter_config.json", base_model_name_or_path="evil/model")
    paths = (tiny.backbone, damaged, tmp_path / "probe.safetensors", tmp_path / "result.json")
    monkeypatch.setattr(sys, "argv", ["verify", *map(str, paths)])
    with pytest.raises(SystemExit) as ended:
        verify.main()
    assert ended.value.code == 42
    assert not (tmp_path / "result.json").exists()
