"""Several views of an image, from training to the bundle: what the checkpoint says, the logits and
the bundle say.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.predict_logits.config import PredictLogitsConfig
from components.predict_logits.step import run as predict_logits
from components.shared.contracts.errors import ConfigError
from components.shared.data.dataset import Dataset
from components.shared.models.classifier import Classifier, normalise
from components.shared.models.gate import Gate
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.policy_artifact import read_distilled_policy
from components.shared.serving import predict
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.vision.view_spec import ViewSpec
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from components.train_gate.config import TrainGateConfig
from components.train_gate.step import run as train_gate
from tests.bundles import write_dataset
from tests.components.conftest import TinyRun, train

VIEWS = {
    "tile_grid": 2,
    "tile_overlap": 0.25,
    "tile_size": 28,
    "mode": "frozen",
    "learning_rate": None,
    "n_cached_augmentations": 2,
}


def _config(tiny: TinyRun, **fields: object) -> TrainBaselineConfig:
    return TrainBaselineConfig.from_mapping(tiny.train_config.to_json() | VIEWS | fields)


@pytest.fixture(scope="module")
def several(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen multi-view training, its threshold, and the evaluation."""
    root = tmp_path_factory.mktemp("several")
    train(tiny, _config(tiny, aggregation="noisy_or", distilled_head=True), root)
    _predict(tiny, root)
    fit_threshold(
        FitThresholdConfig(n_bootstrap=100),
        val_calib_logits=root / "val_calib_logits",
        policy=root / "policy",
    )
    _evaluate(tiny, root, root / "val_test_logits", root / "policy")
    return root


def _predict(tiny: TinyRun, root: Path) -> None:
    predict_logits(
        PredictLogitsConfig(n_processes=1),
        dataset=tiny.dataset,
        splits=tiny.splits,
        checkpoint=root / "checkpoint",
        val_calib_logits=root / "val_calib_logits",
        val_test_logits=root / "val_test_logits",
        val_test_images=root / "val_test_images",
    )


def _evaluate(tiny: TinyRun, root: Path, logits: Path, policy: Path) -> None:
    evaluate(
        EvaluateConfig(n_bootstrap=100),
        val_test_logits=logits,
        softmax_policy=policy,
        val_test_images=tiny.val_test_images,
        evaluation=root / "evaluation",
        report=root / "report.html",
    )


def _test_pixels(tiny: TinyRun, logits: Path) -> tuple[np.ndarray, Logits]:
    stored, _ = read_logits(logits, "VAL_TEST")
    data = Dataset.open(tiny.dataset)
    return data.images(np.array([data.index[sample_id] for sample_id in stored.sample_ids])), stored


def test_an_adapter_is_trained_on_bags_and_the_checkpoint_says_what_the_logits_say(
    tiny: TinyRun, tmp_path: Path
) -> None:
    train(tiny, _config(tiny, mode="lora", aggregation="attention", epochs=1), tmp_path)
    _predict(tiny, tmp_path)
    classifier = Classifier.load(tmp_path / "checkpoint")
    assert classifier.spec.views is not None
    assert (classifier.spec.views.grid, classifier.spec.views.aggregation) == (2, "attention")
    pixels, stored = _test_pixels(tiny, tmp_path / "val_test_logits")
    with torch.inference_mode():
        again = classifier(normalise(torch.from_numpy(pixels), classifier.spec)).numpy()
    np.testing.assert_allclose(again, stored.logits, atol=1e-5)
    np.testing.assert_allclose(stored.logits[:, 0], -stored.logits[:, 1])


def test_a_grid_of_none_or_one_is_the_whole_image(tiny: TinyRun) -> None:
    assert ViewSpec.of(_config(tiny, tile_grid=None)) is None
    assert "views" not in json.loads((tiny.checkpoint / "classifier.json").read_text())


def test_a_gate_sees_the_views_by_their_share(tiny: TinyRun, several: Path, tmp_path: Path) -> None:
    train_gate(
        TrainGateConfig(epochs=2, global_batch_size=16, n_cached_augmentations=2, n_processes=1),
        dataset=tiny.dataset,
        splits=tiny.splits,
        checkpoint=several / "checkpoint",
        gate_checkpoint=tmp_path / "gate_checkpoint",
        val_calib_logits=tmp_path / "calib",
        val_test_logits=tmp_path / "test",
    )
    pixels, stored = _test_pixels(tiny, tmp_path / "test")
    classifier = Classifier.load(tmp_path / "gate_checkpoint")
    gate = Gate.load(tmp_path / "gate_checkpoint", n_features=classifier.head.linear.in_features)
    with torch.inference_mode():
        features = classifier.features(normalise(torch.from_numpy(pixels), classifier.spec))
        logits = classifier.head(features)
        scores = gate.scores(classifier.head.pooled(features), logits)
    assert stored.gate is not None
    np.testing.assert_allclose(logits.numpy(), stored.logits, atol=1e-5)
    np.testing.assert_allclose(scores.numpy(), stored.gate, atol=1e-4)


@pytest.fixture(scope="module")
def bundle(tiny: TinyRun, several: Path) -> Bundle:
    """The bundle of that training."""
    export_bundle(
        ExportConfig(),
        dataset=tiny.dataset,
        splits=tiny.splits,
        checkpoint=several / "checkpoint",
        softmax_policy=several / "policy",
        evaluation=several / "evaluation",
        val_test_images=tiny.val_test_images,
        bundle=several / "bundle",
    )
    return open_bundle(several / "bundle")


def test_the_bundle_answers_as_the_policy_decides(
    tiny: TinyRun, several: Path, bundle: Bundle
) -> None:
    pixels, stored = _test_pixels(tiny, several / "val_test_logits")
    predictor = Predictor(bundle)
    np.testing.assert_allclose(predictor.logits(pixels), stored.logits, atol=1e-5)
    answers = predictor.answers(pixels, all_views=True)
    assert [answer.decision for answer in answers] == bundle.policy.decide(stored.logits).tolist()
    assert {answer.views for answer in answers} == {5}
    views = json.loads((bundle.path / "preprocessing.json").read_text())
    assert views["tiles"] == [[0, 0, 32], [24, 0, 32], [0, 24, 32], [24, 24, 32]]
    assert (views["views"]["aggregation"], views["views"]["size"], views["image_size"]) == (
        "noisy_or",
        28,
        56,
    )
    document = json.loads((bundle.path / "bundle.json").read_text())
    assert not document["stock_pipeline"]
    assert "5 views" in document["stock_pipeline_reason"]
    card = (bundle.path / "README.md").read_text()
    assert "the full image and 4 tiles of it" in card
    assert "the policy decides on all views together" in card


def test_early_exit_looks_at_fewer_views_and_is_reported(
    tiny: TinyRun, several: Path, bundle: Bundle
) -> None:
    pixels, stored = _test_pixels(tiny, several / "val_test_logits")
    predictor = Predictor(bundle)
    # Noisy-or only grows: what is positive as a whole stays so, and on so few images nothing else
    # is certain.
    assert bundle.early_exit is not None
    assert bundle.early_exit.certain_from is not None
    assert bundle.early_exit.negative_to is None
    assert stored.full_image_margin is not None
    exits = stored.full_image_margin >= bundle.early_exit.certain_from
    answers = predictor.answers(pixels)
    assert [answer.views for answer in answers] == np.where(exits, 1, 5).tolist()
    assert [a.decision for a in answers] == [
        a.decision for a in predictor.answers(pixels, all_views=True)
    ]
    report = json.loads((several / "evaluation/eval_report.json").read_text())["early_exit"][
        "softmax"
    ]
    assert report["equal"] == 1
    assert report["views_per_image"] == pytest.approx(5 - 4 * exits.mean())
    html = (several / "evaluation/report.html").read_text()
    assert "Early exit" in html
    assert "Robustness" in html


def test_the_student_is_a_stock_model_that_decides_at_its_own_threshold(
    tiny: TinyRun, several: Path, bundle: Bundle
) -> None:
    pixels, stored = _test_pixels(tiny, several / "val_test_logits")
    rule = read_distilled_policy(several / "policy")
    assert rule is not None
    assert stored.distilled is not None
    model = AutoModelForImageClassification.from_pretrained(bundle.path / "student").eval()
    classifier = Classifier.load(several / "checkpoint")
    whole = normalise(torch.from_numpy(pixels), classifier.spec, last=1)[:, 0]
    with torch.inference_mode():
        logits = model(pixel_values=whole).logits.numpy()
    np.testing.assert_allclose(
        logits[:, 1] - logits[:, 0],
        rule.margin(stored.distilled) - rule.threshold_margin,
        atol=1e-4,
    )
    processor = json.loads((bundle.path / "student/preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 28, "width": 28}
    document = json.loads((bundle.path / "bundle.json").read_text())
    report = json.loads((several / "evaluation/eval_report.json").read_text())
    assert document["forms"]["student"]["accuracy"] == report["student"]["accuracy"]["value"]
    assert document["forms"]["model"]["accuracy"] == report["metrics"]["accuracy"]["value"]
    assert "| `student/` |" in (bundle.path / "README.md").read_text()
    training = json.loads((several / "checkpoint/training.json").read_text())
    assert training["distilled_head"]["val_select/agreement"] >= 0.5


def test_levels_of_distortion_are_reported(tiny: TinyRun, several: Path) -> None:
    stored, _ = read_logits(several / "val_test_logits", "VAL_TEST")
    assert stored.corrupted is not None
    assert stored.corrupted.shape == (4, *stored.logits.shape)
    assert all(not np.allclose(level, stored.logits) for level in stored.corrupted)
    levels = json.loads((several / "evaluation/eval_report.json").read_text())["robustness"][
        "softmax"
    ]
    assert list(levels) == ["as stored", "level 0", "level 1", "level 2", "level 3"]
    assert all(0 <= entries["expected_reward"]["value"] <= 1 for entries in levels.values())


def test_predict_says_how_many_views_it_looked_at(
    tiny: TinyRun,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo = str(next((tiny.source / "img").iterdir()))
    for option, allowed in ((["--all-views"], {5}), ([], {1, 5})):
        monkeypatch.setattr(sys, "argv", ["predict", str(bundle.path), photo, *option])
        with pytest.raises(SystemExit, match="0"):
            predict.main()
        assert json.loads(capsys.readouterr().out)["views"] in allowed


def test_an_explanation_is_of_a_view_that_the_answer_used(
    tiny: TinyRun,
    bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = [str(photo) for photo in sorted((tiny.source / "img").iterdir())[:8]]
    with pytest.raises(SystemExit, match="0"):
        predict.main([str(bundle.path), *photos, "--explain", str(tmp_path / "why")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(list((tmp_path / "why").glob("*.png"))) == len(photos)
    for line in lines:
        assert 0 <= line["explanation"]["view"] < line["views"]
        if line["views"] == 1:
            # Of one view the margin is the image's own.
            margin = np.log(line["probability"] / (1 - line["probability"]))
            threshold = np.log(line["threshold"] / (1 - line["threshold"]))
            assert line["explanation"]["margin"] == pytest.approx(margin - threshold, abs=1e-3)


def test_one_class_of_three_against_the_rest_is_refused_before_a_model_is_loaded(
    tiny: TinyRun, tmp_path: Path
) -> None:
    write_dataset(tmp_path / "dataset", ("None", "Roadwork", "Other"))
    with pytest.raises(
        ConfigError, match=r"tile_grid=2 with task=binary needs 2 classes, not \['None'"
    ):
        train_baseline(
            _config(tiny, task="binary"),
            dataset=tmp_path / "dataset",
            splits=tiny.splits,
            backbone=tiny.backbone,
            checkpoint=tmp_path / "checkpoint",
            val_select_logits=tmp_path / "select",
        )
    with pytest.raises(ConfigError, match="tile_flips=True needs tile_grid"):
        _config(tiny, tile_grid=None, tile_flips=True)
