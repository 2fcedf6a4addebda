"""Bundles of each policy answer as the policy, and their stock weights round as it decides."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from components.shared.calibration import registry
from components.shared.calibration.calibrator import Calibrator
from components.shared.calibration.linear import Platt, Temperature
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.outcomes import Outcomes
from components.shared.models.classifier import Classifier, normalise
from components.shared.models.gate import Gate, GateHead
from components.shared.policies.policy import GatePolicy, Policy, ScrcPolicy, softmax_policy
from components.shared.serving.bundle import open_bundle
from components.shared.serving.predictor import Predictor
from components.shared.stats.metrics import sigmoid
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.bundles import SIZE, make_inputs, noise, random_classifier
from tests.components.shared.stats.cal40 import MARGIN, TRUTH

NAMES = ("None", "Roadwork")
COMMON: dict[str, Any] = {
    "outcomes": Outcomes.of(NAMES),
    "threshold": 0.5,
    "threshold_margin": 0.0,
    "risk": "error",
    "alpha": 0.05,
    "delta": 0.1,
    "coverage_lower_bound": 0.3,
}
FITTED = np.column_stack([np.zeros(40), MARGIN]), TRUTH.astype(np.int64)


def _scrc(calibrator: Calibrator, bound: float = 0.5) -> ScrcPolicy:
    return ScrcPolicy(
        kind="scrc",
        **COMMON,
        calibrator=calibrator,
        answer_from=(2 * bound, bound),
    )


def _middle() -> float:
    """The middle raw score of the random gate that the inputs get, so that it answers half of the
    images.
    """
    classifier = random_classifier("dinov2", NAMES)
    torch.manual_seed(1)
    head = GateHead(classifier.head.linear.in_features)
    with torch.no_grad():
        features = classifier.features(
            normalise(torch.from_numpy(noise(40, seed=9)), classifier.spec)
        )
        return float(head(features).median())


POLICIES: dict[str, Policy] = {
    "softmax": softmax_policy(Outcomes.of(NAMES, "binary", "Roadwork"), 0.4, Platt((0.5,), (0.1,))),
    "scrc": _scrc(Temperature(1.5)),
    "scrc_beta": _scrc(registry.fit("beta", *FITTED), 8.0),
    "scrc_histogram": _scrc(registry.fit("histogram", *FITTED)),
    "gate": GatePolicy(
        kind="gate",
        **COMMON,
        calibrator=Temperature(2.0),
        gate_slope=3.0,
        gate_intercept=-3 * _middle(),
        answer_from=0.0,
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_bundle_answers_as_its_policy(name: str, tmp_path: Path) -> None:
    policy = POLICIES[name]
    inputs = make_inputs(tmp_path, policy=policy)
    path = inputs.export(tmp_path / "bundle", policy=policy.kind)
    bundle, pixels = open_bundle(path), noise(40, seed=9)
    assert bundle.policy == policy
    classifier = Classifier.load(tmp_path / "checkpoint")
    with torch.no_grad():
        features = classifier.features(normalise(torch.from_numpy(pixels), classifier.spec))
        logits = classifier.head(features)
        gate = (
            Gate.load(tmp_path / "checkpoint", n_features=classifier.head.linear.in_features)
            .scores(features, logits)
            .numpy()
            if policy.kind == "gate"
            else None
        )
    answers = Predictor(bundle).answers(pixels)
    assert [answer.decision for answer in answers] == policy.decide(logits.numpy(), gate).tolist()
    said = [answer.probability for answer in answers]
    np.testing.assert_allclose(said, sigmoid(policy.margin(logits.numpy())), atol=1e-3)
    assert {answer.decision for answer in answers} >= (
        {"defer"} if policy.kind != "softmax" else {"Roadwork", "None"}
    )
    document = json.loads((path / "bundle.json").read_text())
    assert document["stock_pipeline"] == (name != "scrc_histogram")
    assert document["calibrated_weights"] == (name not in ("scrc_beta", "scrc_histogram"))
    assert ("not linear" in document["calibrated_weights_reason"]) == (name == "scrc_beta")
    if document["stock_pipeline"]:
        _check_rounding(path, pixels, policy, logits.numpy())
    assert ("defers images to stage 2" in (path / "README.md").read_text()) == (
        policy.kind != "softmax"
    )
    assert (path / "gate").is_dir() == (policy.kind == "gate")


SIGNS = Outcomes.of(("stop", "yield", "bus", "priority", "no entry", "speed 30"))
COMMON_OF_SIGNS = COMMON | {"outcomes": SIGNS}
POLICIES_OF_SIGNS: dict[str, Policy] = {
    "softmax": softmax_policy(SIGNS, 0.2, Temperature(1.5)),
    "scrc": ScrcPolicy(
        kind="scrc",
        **COMMON_OF_SIGNS,
        calibrator=Temperature(1.5),
        answer_from=(-0.5, 0.5, 0.0, 9.0, None, 0.2),
    ),
    "scrc with sets": ScrcPolicy(
        kind="scrc",
        **COMMON_OF_SIGNS,
        calibrator=Temperature(4.0),
        answer_from=(-1.5,) * 6,
        single_from=0.7,
    ),
    "gate": GatePolicy(
        kind="gate",
        **COMMON_OF_SIGNS,
        calibrator=None,
        gate_slope=3.0,
        gate_intercept=0.0,
        answer_from=0.0,
    ),
}


@pytest.mark.parametrize("name", POLICIES_OF_SIGNS)
def test_a_bundle_of_several_classes_answers_as_its_policy(name: str, tmp_path: Path) -> None:
    policy = POLICIES_OF_SIGNS[name]
    inputs = make_inputs(tmp_path, policy=policy)
    bundle = open_bundle(inputs.export(tmp_path / "bundle", policy=policy.kind))
    assert bundle.policy == policy
    pixels, classifier = noise(40, seed=9), Classifier.load(tmp_path / "checkpoint")
    logits = inputs.logits(pixels)
    gate = None
    if policy.kind == "gate":
        with torch.no_grad():
            features = classifier.features(normalise(torch.from_numpy(pixels), classifier.spec))
            gate = Gate.load(
                tmp_path / "checkpoint", n_features=classifier.head.linear.in_features
            ).scores(features, torch.from_numpy(logits))
        gate = gate.numpy()

    answers = Predictor(bundle).answers(pixels)
    names = np.array(SIGNS.names)
    expected = [
        "defer" if not answered else names[members].tolist()
        for answered, members in zip(
            policy.answers(logits, gate), policy.answer_sets(logits), strict=True
        )
    ]
    expected = [answer[0] if len(answer) == 1 else answer for answer in expected]
    assert [answer.decision for answer in answers] == expected
    assert any(isinstance(answer, list) for answer in expected) == (name == "scrc with sets")

    for answer, values in zip(answers, policy.probabilities(logits), strict=True):
        top = np.argsort(-values)[:5]
        assert answer.probabilities is not None
        assert list(answer.probabilities) == names[top].tolist()
        assert list(answer.probabilities.values()) == pytest.approx(values[top].tolist(), abs=1e-4)
        assert answer.probability == next(iter(answer.probabilities.values()))
        assert (answer.threshold is None) == (policy.kind != "softmax")


def _check_rounding(path: Path, pixels: np.ndarray, policy: Policy, logits: np.ndarray) -> None:
    """A consumer that rounds at 0.5 gets the policy's decision, also where the policy defers."""
    model = AutoModelForImageClassification.from_pretrained(path / "model").eval()
    spec = ClassifierSpec(NAMES, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "dinov2")
    with torch.no_grad():
        stated = model(normalise(torch.from_numpy(pixels), spec)).logits.softmax(1)[:, 1].numpy()
    assert ((np.round(stated) == 1) == (policy.decision(logits) == 1)).all()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("scrc", "policy='scrc' is to be bundled, but scrc_policy was not given"),
        ("gate", "policy='gate' is to be bundled, but gate_policy was not given"),
    ],
)
def test_the_policy_that_was_asked_for_must_be_there(
    asked: str, message: str, tmp_path: Path
) -> None:
    from components.export_bundle.config import ExportConfig
    from components.export_bundle.step import run

    make_inputs(tmp_path)
    paths = {name: tmp_path / name for name in ("checkpoint", "evaluation", "val_test_images")}
    with pytest.raises(ArtifactError, match=message):
        run(
            ExportConfig(policy=asked, formats=("transformers",)),
            **paths,
            softmax_policy=tmp_path / "policy",
            bundle=tmp_path / "bundle",
        )
    with pytest.raises(
        ArtifactError, match=f"holds a policy of kind 'softmax', expected '{asked}'"
    ):
        make_inputs(tmp_path).export(tmp_path / "bundle", policy=asked)
    assert not (tmp_path / "bundle").exists()


def _gate(root: Path, classifier: Classifier) -> Gate:
    return Gate.load(root / "checkpoint", n_features=classifier.head.linear.in_features)
