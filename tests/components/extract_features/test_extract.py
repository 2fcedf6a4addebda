"""Images that are stored larger than the model sees them: one size from features to the bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.evaluate.config import EvaluateConfig
from components.evaluate.step import run as evaluate
from components.export_bundle.config import ExportConfig
from components.export_bundle.step import run as export_bundle
from components.extract_features.config import ExtractFeaturesConfig
from components.extract_features.step import run as extract_features
from components.fit_threshold.config import FitThresholdConfig
from components.fit_threshold.step import run as fit_threshold
from components.shared.contracts.errors import ArtifactError, ConfigError
from components.shared.contracts.random_streams import CachedImageStream
from components.shared.data.dataset import Dataset
from components.shared.data.features import open_features
from components.shared.data.splits import read_splits
from components.shared.data.val_test_images import ValTestImages
from components.shared.models.backbone import load_backbone
from components.shared.models.classifier import Classifier, normalise, standardise
from components.shared.policies.logits import read_logits
from components.shared.serving.bundle import open_bundle
from components.shared.training.classifier.build import build
from components.shared.training.classifier.tasks import ImageTask
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import SplitData
from components.shared.training.loop.sampler import step_rng
from components.shared.vision import augmentation
from components.train_baseline.config import TrainBaselineConfig
from components.train_baseline.step import run as train_baseline
from tests.components.conftest import TinyRun, predict, train

STORED, SEEN = 56, 28
WORLD = World(0, 1, torch.device("cpu"))


def _config(tiny: TinyRun, **fields: object) -> TrainBaselineConfig:
    changes = {"input_size": SEEN, "epochs": 2} | fields
    return TrainBaselineConfig.from_mapping(tiny.train_config.to_json() | changes)


@pytest.fixture(scope="module")
def seen(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Training and prediction at half of the stored size."""
    root = tmp_path_factory.mktemp("seen")
    for name in ("dataset", "splits", "backbone"):
        (root / name).symlink_to(tiny.root / name)
    run = TinyRun(root, tiny.source, _config(tiny))
    train(run, run.train_config, root)
    predict(run, root)
    return run


def test_the_checkpoint_predicts_resized_images_and_the_bundle_is_of_that_size(
    seen: TinyRun,
) -> None:
    classifier, data = Classifier.load(seen.checkpoint), Dataset.open(seen.dataset)
    assert (data.image_size, classifier.spec.image_size) == (STORED, SEEN)
    for split, name in (("VAL_CALIB", "val_calib_logits"), ("VAL_TEST", "val_test_logits")):
        logits, _ = read_logits(seen.root / name, split)
        rows = np.array([data.index[sample_id] for sample_id in logits.sample_ids])
        pixels = torch.from_numpy(data.resized(SEEN).images(rows))
        with torch.inference_mode():
            again = classifier(normalise(pixels, classifier.spec)).numpy()
        np.testing.assert_allclose(again, logits.logits, atol=1e-5)

    images = ValTestImages.open(seen.val_test_images)
    assert images.probes.shape[1:] == (SEEN, SEEN, 3)

    fit_threshold(
        FitThresholdConfig(n_bootstrap=100),
        val_calib_logits=seen.val_calib_logits,
        policy=seen.policy,
    )
    evaluate(
        EvaluateConfig(n_bootstrap=100),
        val_test_logits=seen.val_test_logits,
        softmax_policy=seen.policy,
        val_test_images=seen.val_test_images,
        evaluation=seen.evaluation,
        report=seen.root / "report.html",
    )
    export_bundle(
        ExportConfig(formats=("transformers",)),
        checkpoint=seen.checkpoint,
        softmax_policy=seen.policy,
        evaluation=seen.evaluation,
        val_test_images=seen.val_test_images,
        bundle=seen.bundle,
    )
    assert open_bundle(seen.bundle).spec.image_size == SEEN


@pytest.mark.parametrize("strength", ["moderate", "none"])
def test_training_crops_the_stored_pixels(tiny: TinyRun, seen: TinyRun, strength: str) -> None:
    data, assignment = Dataset.open(tiny.dataset), read_splits(tiny.splits)
    splits = [SplitData.of(data, assignment, split) for split in ("TRAIN", "VAL_SELECT")]
    config = _config(tiny, augmentation=strength)
    task = ImageTask(config, Classifier.load(seen.checkpoint), *splits, WORLD)
    given: list[tuple[int, ...]] = []
    task.logits(lambda pixels, _: given.append(pixels.shape) or pixels, *[np.arange(4)] * 2, 0)  # type: ignore[arg-type,func-returns-value]
    assert given == [(4, 3, SEEN, SEEN)]
    stored = STORED if strength == "moderate" else SEEN
    assert task.reader.images(np.arange(4)).shape == (4, stored, stored, 3)
    task.reader.close()


def test_features_are_of_the_size_that_the_model_sees(
    tiny: TinyRun, seen: TinyRun, tmp_path: Path
) -> None:
    config = ExtractFeaturesConfig(
        n_processes=1, n_cached_augmentations=2, precision="fp32", input_size=SEEN
    )
    sources = {name: tiny.root / name for name in ("dataset", "splits", "backbone")}
    features = {name: tmp_path / name for name in ("train_features", "val_select_features")}
    extract_features(config, **sources, **features)

    data = Dataset.open(tiny.dataset)
    classifier = Classifier.load(seen.checkpoint)
    found, _ = open_features(features["train_features"], "TRAIN")
    rows = np.array([data.index[sample_id] for sample_id in found.sample_ids])
    fresh = Classifier(load_backbone(tiny.backbone), classifier.head, classifier.spec).eval()
    drawn = augmentation.draw(
        step_rng(0, 1, CachedImageStream.CACHED_AUGMENTATION), len(rows), "moderate"
    )
    crops = augmentation.apply(torch.from_numpy(data.images(rows)), drawn, SEEN)
    with torch.no_grad():
        whole = fresh.features(
            normalise(torch.from_numpy(data.resized(SEEN).images(rows)), classifier.spec)
        )
        augmented = fresh.features(standardise(crops, classifier.spec))
    every, second = np.arange(len(rows)), np.ones(len(rows), dtype=np.int64)
    close = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(found.take(every), whole.numpy(), **close)
    np.testing.assert_allclose(found.take(every, second), augmented.numpy(), **close)

    # Heads on them are trained at this size; for another size they are refused.
    frozen = {"mode": "frozen", "learning_rate": None, "n_cached_augmentations": 2}
    outputs = {name: tmp_path / name for name in ("checkpoint", "val_select_logits")}
    with pytest.raises(ArtifactError, match="input_size=28, not None"):
        train_baseline(_config(tiny, input_size=None, **frozen), **sources, **outputs, **features)
    train_baseline(_config(tiny, **frozen), **sources, **outputs, **features)
    assert Classifier.load(outputs["checkpoint"]).spec.image_size == SEEN


@pytest.mark.parametrize(
    ("size", "message"),
    [(70, "input_size=70 is above image_size=56"), (30, "input_size=30 is no multiple of")],
)
def test_a_size_that_cannot_be_seen_is_refused(tiny: TinyRun, size: int, message: str) -> None:
    data = Dataset.open(tiny.dataset)
    with pytest.raises(ConfigError, match=message):
        build(_config(tiny, input_size=size), data, tiny.backbone)
