"""An explanation is about the margin that the policy compares with its threshold."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from components.shared.calibration.calibrator import Calibrator, class_log_odds
from components.shared.calibration.linear import Platt, Temperature
from components.shared.contracts.outcomes import Outcomes
from components.shared.models.classifier import Classifier, new_head
from components.shared.policies.policy import argmax_policy, softmax_policy
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.serving.explanation import explain
from components.shared.serving.predictor import Predictor
from components.shared.vision.view_spec import ViewSpec
from tests.bundles import SIZE, make_inputs, noise, random_classifier

BINARY = Outcomes.of(("Roadwork", "None"), "binary", "Roadwork")
SEVERAL = Outcomes.of(("stop", "yield", "bus"), "binary", "yield")


@pytest.mark.parametrize(
    ("outcomes", "calibrator"),
    [
        (BINARY, None),
        (BINARY, Temperature(2.5)),
        (SEVERAL, Temperature(0.5)),
    ],
    ids=["two classes", "two classes, temperature", "one of three, temperature"],
)
def test_the_margin_is_the_policys_less_its_threshold(
    outcomes: Outcomes, calibrator: Calibrator | None, tmp_path: Path
) -> None:
    policy = softmax_policy(outcomes, 0.7, calibrator)
    bundle = open_bundle(make_inputs(tmp_path, policy=policy).export(tmp_path / "bundle"))
    predictor, pixels = Predictor(bundle), noise(6)
    margin = policy.margin(predictor.logits(pixels)) - policy.threshold_margin
    answers = predictor.answers(pixels)
    assert len({answer.decision for answer in answers}) == 2
    for image, expected, answer in zip(pixels, margin, answers, strict=True):
        found = predictor.explanation(image)
        assert found.margin == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert found.margin == found.cls + found.patches.sum() + found.constant
        assert (found.margin > 0) is (answer.decision == found.outcome)
        assert found.outcome == outcomes.positive_class
        assert (found.from_threshold, found.box, found.view) == (True, (0.0, 0.0, 1.0), None)
        assert found.patches.shape == (4, 4)


def test_of_several_classes_the_decided_one_is_explained(tmp_path: Path) -> None:
    policy = argmax_policy(Outcomes.of(("stop", "yield", "bus")), Temperature(1.7))
    bundle = open_bundle(make_inputs(tmp_path, policy=policy).export(tmp_path / "bundle"))
    predictor, pixels = Predictor(bundle), noise(8)
    logits = policy.calibrated(predictor.logits(pixels))
    for row, answer in enumerate(predictor.answers(pixels)):
        found = predictor.explanation(pixels[row])
        k = policy.outcomes.names.index(found.outcome)
        assert found.outcome == answer.decision
        expected = class_log_odds(logits[row : row + 1], k)[0]
        assert found.margin == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert not found.from_threshold


VIEWS = ViewSpec(
    grid=2,
    overlap=0.0,
    flips=True,
    size=28,
    aggregation="max",
    top_k=1,
    sharpness=1.0,
    positive_class="Roadwork",
)


def _of_views(path: Path, calibrator: Calibrator) -> tuple[Bundle, Classifier]:
    """A classifier of ten views, and a bundle of it that nothing reads but the split."""
    whole = random_classifier("dinov2", BINARY.class_names)
    spec = dataclasses.replace(whole.spec, views=VIEWS)
    head = new_head(whole.head.linear.in_features, spec)
    torch.nn.init.normal_(head.linear.weight, std=3.0)
    policy = softmax_policy(BINARY, 0.4, calibrator)
    return Bundle(path, policy, spec, stock=False), Classifier(whole.backbone, head, spec).eval()


def test_the_view_that_decided_is_placed_in_the_image(tmp_path: Path) -> None:
    bundle, classifier = _of_views(tmp_path, Platt((1.5,), (-0.3,)))
    policy, generator = bundle.policy, torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(12):
        pixel_values = torch.randn((1, 10, 3, 28, 28), generator=generator)
        with torch.inference_mode():
            tokens = classifier.tokens(pixel_values)
            logits = classifier(pixel_values).double().numpy()
        found = explain(bundle, classifier, tokens, logits, None)
        margin = policy.margin(logits)[0] - policy.threshold_margin
        assert found.margin == pytest.approx(margin, rel=1e-5, abs=1e-5)
        assert found.view is not None
        seen.add(found.view)

        # Seen mirrored, the same evidence lies on the other side.
        swapped = torch.cat([tokens[:, 5:], tokens[:, :5]], dim=1)
        other = explain(bundle, classifier, swapped, logits, None)
        assert other.view == (found.view + 5) % 10
        assert other.box == found.box
        np.testing.assert_array_equal(other.patches, found.patches[:, ::-1])

        number = found.view % 5
        expected = (0, 0, 1) if not number else (((number - 1) % 2) / 2, (number - 1) // 2 / 2, 0.5)
        assert found.box == expected
    assert len(seen) > 3
    assert SIZE == 56


def test_a_reference_moves_what_all_images_share_into_the_constant(tmp_path: Path) -> None:
    """No margin and no order of patches changes, only the place of zero."""
    policy = softmax_policy(BINARY, 0.0)
    bundle = open_bundle(make_inputs(tmp_path, policy=policy).export(tmp_path / "bundle"))
    predictor, pixels = Predictor(bundle), noise(4)
    features, _, _ = predictor.embedded(pixels)
    reference = features.astype(np.float64).mean(axis=0)
    plain = [predictor.explanation(image) for image in pixels]
    predictor._mean_features = reference  # type: ignore[misc]
    relative = [predictor.explanation(image) for image in pixels]
    for before, after in zip(plain, relative, strict=True):
        assert after.margin == pytest.approx(before.margin, abs=1e-5)
        difference = before.patches - after.patches
        np.testing.assert_allclose(difference, difference[0, 0], atol=1e-9)
    assert np.mean([found.cls for found in relative]) == pytest.approx(0, abs=1e-5)
    assert np.mean([found.patches.sum() for found in relative]) == pytest.approx(0, abs=1e-5)
