"""The phases on tiny data: what each promises its user."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.ingest_dataset.config import IngestConfig
from components.ingest_dataset.step import run as ingest_dataset
from components.shared.contracts.artifacts import sha256_file
from components.shared.contracts.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    LeakageViolationError,
)
from components.shared.data.dataset import Dataset
from components.shared.policies.logits import read_logits
from components.shared.policies.policy_artifact import read_policy
from components.train_baseline.config import TrainBaselineConfig
from tests.components.conftest import TinyRun, export, train, write_source

STOCK = """
import json, sys
from transformers import pipeline
classify = pipeline("image-classification", model=sys.argv[1])
assert not any(name.split(".")[0] in ("components", "pipelines") for name in sys.modules)
answers = [{a["label"]: a["score"] for a in classify(path)}["Roadwork"] for path in sys.argv[2:]]
print(json.dumps(answers))
"""


def _digests(folder: Path) -> dict[str, str]:
    return {
        f.relative_to(folder).as_posix(): sha256_file(f)
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def test_ingest_keeps_one_of_equal_files_and_unites_their_groups(tiny: TinyRun) -> None:
    data = Dataset.open(tiny.dataset)
    assert len(data.samples) == 120
    assert "exact,0,0" in (tiny.dataset / "duplicates.csv").read_text()


def test_ingest_does_not_depend_on_the_order_of_rows(tiny: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny.source, tmp_path / "source")
    table = tmp_path / "source/labels.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *reversed(rows)]) + "\n")
    ingest_dataset(
        IngestConfig(data=str(tmp_path / "source"), image_size=56), dataset=tmp_path / "dataset"
    )
    first, second = _digests(tiny.dataset), _digests(tmp_path / "dataset")
    del (
        first["manifest.json"],
        second["manifest.json"],
    )  # names the source's path in its configuration
    assert first == second


def test_too_many_broken_images_stop_ingest_and_are_all_named(tmp_path: Path) -> None:
    write_source(tmp_path / "source", 20)
    for index in range(3):
        (tmp_path / f"source/img/{index:03d}.jpg").write_bytes(b"")
    config = IngestConfig(data=str(tmp_path / "source"))
    with pytest.raises(
        DataError, match=r"3 of 21 .*empty file: source/img/000.jpg, .*source/img/002.jpg \(all of"
    ):
        ingest_dataset(config, dataset=tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dataset.rejects.csv", "source"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: t.replace("path,label", "file,label"),
            "no column 'path'; columns: file, label, group, day",
        ),
        (
            lambda t: t.replace("path,label", "path,labels"),
            "no column 'label'; did you mean 'labels'",
        ),
        (
            lambda t: t.replace("img/003.jpg,1", "img/003.jpg,7"),
            "line 5: label '7' is in neither label_map",
        ),
        (
            lambda t: t.replace("img/003.jpg", "../003.jpg"),
            r"line 5: path '../003.jpg' leaves the source",
        ),
        (
            lambda t: t.replace("img/003.jpg", "/etc/passwd"),
            "line 5: path '/etc/passwd' leaves the source",
        ),
        (
            lambda t: t.replace("img/003.jpg", "img/002.jpg"),
            "line 5: path 'img/002.jpg' was listed in line 4",
        ),
        (lambda t: t.splitlines()[0] + "\n", "no rows"),
        (lambda t: t + "img/9.jpg,1\n", "2 fields, expected 4"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, edit: object, message: str) -> None:
    write_source(tmp_path / "source", 20)
    table = tmp_path / "source/labels.csv"
    table.write_text(edit(table.read_text().replace("\r\n", "\n")))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        ingest_dataset(IngestConfig(data=str(tmp_path / "source")), dataset=tmp_path / "dataset")


def test_a_link_out_of_the_source_is_rejected(tmp_path: Path) -> None:
    write_source(tmp_path / "source", 20)
    secret = tmp_path / "secret.jpg"
    shutil.move(tmp_path / "source/img/003.jpg", secret)
    (tmp_path / "source/img/003.jpg").symlink_to(secret)
    with pytest.raises(DataError, match=r"symbolic link out of the source: .*img/003\.jpg"):
        ingest_dataset(IngestConfig(data=str(tmp_path / "source")), dataset=tmp_path / "dataset")


def test_training_again_gives_the_same_bytes(tiny: TinyRun, tmp_path: Path) -> None:
    train(tiny, tiny.train_config, tmp_path)
    assert _digests(tiny.checkpoint) == _digests(tmp_path / "checkpoint")
    assert _digests(tiny.val_select_logits) == _digests(tmp_path / "val_select_logits")


@pytest.mark.parametrize(
    ("mode", "optimizer"),
    [("full", "adamw"), ("frozen", "adamw"), ("lora", "adamw"), ("lora", "profit")],
)
def test_two_processes_train_the_model_of_one(
    tiny: TinyRun, tmp_path: Path, mode: str, optimizer: str
) -> None:
    weights = []
    for n_processes in (1, 2):
        changes = {
            "mode": mode,
            "optimizer": optimizer,
            "epochs": 1,
            "n_processes": n_processes,
            "n_cached_augmentations": 2,
        }
        config = TrainBaselineConfig.from_mapping(tiny.train_config.to_json() | changes)
        train(tiny, config, tmp_path / str(n_processes))
        weights.append(load_file(tmp_path / f"{n_processes}/checkpoint/head.safetensors"))
    one, two = (read_logits(tmp_path / f"{n}/val_select_logits", "VAL_SELECT")[0] for n in (1, 2))
    assert one.sample_ids == two.sample_ids
    assert np.allclose(one.logits, two.logits, atol=2e-4)
    assert np.allclose(weights[0]["weight"], weights[1]["weight"], atol=2e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive_class": "Road"}, "positive_class='Road' is not in"),
    ],
)
def test_training_refuses_before_starting_a_process(
    tiny: TinyRun, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        train(tiny, dataclasses.replace(tiny.train_config, **changes), tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_half_precision_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="precision='fp16' is refused: DINO backbones overflow"):
        TrainBaselineConfig(precision="fp16")


def test_fitting_refuses_the_test_split_however_it_is_labelled(
    tiny: TinyRun, tmp_path: Path
) -> None:
    config = FitThresholdConfig(n_bootstrap=100)
    with pytest.raises(LeakageViolationError, match="holds split 'VAL_TEST'"):
        fit_threshold(config, val_calib_logits=tiny.val_test_logits, policy=tmp_path / "policy")
    relabelled = tmp_path / "relabelled"
    shutil.copytree(tiny.val_test_logits, relabelled)
    manifest = relabelled / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace("VAL_TEST", "VAL_CALIB").replace("ValTest", "ValCalib")
    )
    with pytest.raises(ArtifactError, match="edited after it was written"):
        fit_threshold(config, val_calib_logits=relabelled, policy=tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_the_report_stands_alone(tiny: TinyRun) -> None:
    html = (tiny.root / "report.html").read_text()
    assert "http://" not in html.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    assert "prefers-color-scheme: dark" in html
    assert "<svg" in html
    document = json.loads((tiny.evaluation / "eval_report.json").read_text())
    accuracy = document["metrics"]["accuracy"]
    assert (accuracy["interval_95"] is None) == (document["n_groups"] < 16)
    assert f"Evaluation report: {document['question']}" in html


def test_the_stock_pipeline_decides_as_the_policy_does(tiny: TinyRun, tmp_path: Path) -> None:
    logits, _ = read_logits(tiny.val_test_logits, "VAL_TEST")
    policy, _ = read_policy(tiny.policy)
    images = [str(tiny.source / path) for path in logits.paths]
    command = [sys.executable, "-I", "-c", STOCK, str(tiny.bundle / "model"), *images]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    probabilities = np.array(json.loads(finished.stdout.splitlines()[-1]))
    expected = policy.decide(logits.logits) == "Roadwork"
    assert (np.round(probabilities) == 1).tolist() == expected.tolist()
    assert ((probabilities >= 0.5) == expected).all()


def test_bundles_are_repeatable_and_changed_ones_refused(tiny: TinyRun, tmp_path: Path) -> None:
    export(tiny, tmp_path / "bundle")
    assert _digests(tiny.bundle) == _digests(tmp_path / "bundle")
    (tmp_path / "bundle/policy.json").write_text("{}")
    image = str(tiny.source / "img/001.jpg")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"x")

    def predict(bundle: Path, *images: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "components.shared.serving.predict", str(bundle), *images]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = predict(tmp_path / "bundle", image)
    assert refused.returncode == 42
    assert "policy.json" in refused.stderr
    answered = predict(tiny.bundle, str(broken), image)
    assert answered.returncode == 42
    first, second = (json.loads(line) for line in answered.stdout.splitlines())
    assert "not an image" in first["error"]
    assert second["decision"] in ("Roadwork", "None")
    assert 0 <= second["probability"] <= 1
