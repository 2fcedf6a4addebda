"""Graphs of views, gates, several classes and calibrators answer as the bundle's own model.

Each is exported for onnxruntime and compared on noise, of which every policy answers and defers
some.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModel, DINOv3ViTConfig

from components.export_bundle.onnx_export import write_onnx
from components.shared.calibration import registry
from components.shared.calibration.calibrator import class_log_odds
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.outcomes import Outcomes
from components.shared.models.classifier import Classifier, new_head, normalise
from components.shared.models.gate import Gate, GateHead
from components.shared.policies.early_exit import EarlyExit
from components.shared.policies.policy import GatePolicy, Policy, ScrcPolicy, softmax_policy
from components.shared.serving.bundle import Bundle
from components.shared.serving.formats.onnx_predictor import OnnxPredictor
from components.shared.serving.predictor import Predictor
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec
from tests.bundles import CONFIGS, SIZE, noise

TWO, THREE = Outcomes.of(("None", "Roadwork")), Outcomes.of(("a", "b", "c"))
REST = Outcomes.of(("a", "Roadwork", "c"), "binary")
SELECTIVE: dict[str, Any] = {
    "threshold": 0.5,
    "threshold_margin": 0.0,
    "risk": "error",
    "alpha": 0.1,
    "delta": 0.1,
    "coverage_lower_bound": 0.2,
}
VIEW = 28  # pixels of a view: two patches


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and a policy."""

    outcomes: Outcomes = TWO
    kind: str = "softmax"
    calibrator: str | None = None
    aggregation: str | None = None
    family: str = "dinov2"
    flips: bool = False


CASES = {
    "softmax": Case(family="dinov2_with_registers", calibrator="platt"),
    "gate": Case(kind="gate", calibrator="temperature", family="vit"),
    "gatekeeper": Case(kind="gatekeeper"),
    "scrc histogram": Case(kind="scrc", calibrator="histogram"),
    "scrc isotonic, one of three": Case(REST, "scrc", "isotonic"),
    "dinov3 beta": Case(calibrator="beta", family="dinov3_vit"),
    "three classes": Case(THREE, "softmax", "dirichlet"),
    "three classes, sets": Case(THREE, "sets", "temperature"),
    "three classes, gate": Case(THREE, "gate", "vector"),
    "views lse": Case(aggregation="lse", calibrator="beta"),
    "views noisy_or scrc": Case(kind="scrc", aggregation="noisy_or", flips=True),
    "views attention gate": Case(kind="gate", aggregation="attention"),
    "views max": Case(aggregation="max", family="dinov3_vit"),
    "views topk_mean, three classes, gate": Case(THREE, "gate", None, "topk_mean"),
}
FAST = ("scrc histogram", "views lse")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_answers_are_those_of_the_bundle_s_own_model(name: str, tmp_path: Path) -> None:
    bundle = bundle_of(CASES[name], tmp_path)
    write_onnx(bundle, tmp_path / "onnx")
    pixels, own, form = noise(40, seed=9), Predictor(bundle), OnnxPredictor(bundle, threads=1)

    for all_views in (False, True):
        found = form.answers(pixels, all_views=all_views)
        expected = own.answers(pixels, all_views=all_views)
        assert [answer.decision for answer in found] == [answer.decision for answer in expected]
        assert [answer.views for answer in found] == [answer.views for answer in expected]
        assert len({str(answer.decision) for answer in expected}) > 1
        np.testing.assert_allclose(
            [answer.probability for answer in found],
            [answer.probability for answer in expected],
            atol=1e-4,
        )
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine.probabilities or {}).keys() == (theirs.probabilities or {}).keys()

    for file in (tmp_path / "onnx").glob("*.onnx"):
        nodes = onnx.load(file).graph.node
        assert [node.op_type for node in nodes if "images" in node.input] == ["Cast"]

    if bundle.early_exit is not None:
        assert {answer.views for answer in own.answers(pixels)} == {1, bundle.early_exit.n_views}
    stages = zip(form.outputs_by_stage(pixels), own.scores_by_stage(pixels), strict=True)
    for outputs, (logits, gate) in stages:
        np.testing.assert_allclose(outputs.logits, logits, atol=1e-3)
        assert (outputs.gate is None) == (gate is None)
        if gate is not None:
            np.testing.assert_allclose(outputs.gate, gate, atol=1e-3)


def bundle_of(case: Case, root: Path) -> Bundle:
    """The files of a bundle that its model is read from, with a random model."""
    classifier = _classifier(case)
    if case.kind in ("gate", "gatekeeper"):
        (root / "gate").mkdir()
        torch.manual_seed(1)
        n_features = classifier.head.linear.in_features
        Gate(GateHead(n_features) if case.kind == "gate" else None).save(root / "gate")

    pixels = torch.from_numpy(noise(40, seed=9))
    with torch.no_grad():
        features = classifier.features(normalise(pixels, classifier.spec))
        logits = classifier.head(features).double()
        gate = None
        if (root / "gate").is_dir():
            stored = Gate.load(root / "gate", n_features=classifier.head.linear.in_features)
            gate = stored.scores(classifier.head.pooled(features), logits).double().numpy()
        whole = classifier.head(features[:, :1]).double().numpy() if case.aggregation else None

    (root / "model").mkdir()
    classifier.save(root / "model")
    policy = _policy(case, logits.numpy(), gate)
    write_json(root / "policy.json", policy.to_json())
    # Stored as trained: `stock` is not, and a fold of the head's weights is not undone.
    bundle = Bundle(root, policy, classifier.spec, stock=False)
    if whole is None:
        return _fused(bundle, classifier)
    return dataclasses.replace(bundle, early_exit=_early_exit(case, classifier.spec, whole))


def _fused(bundle: Bundle, classifier: Classifier) -> Bundle:
    """Write the model with what the weights can hold of calibrator and threshold."""
    from components.export_bundle.fuse_head import stock_incompatibility, write_model
    from components.shared.policies.logit_affine import logit_affine_of

    (bundle.path / "model").rename(bundle.path / "as-trained")
    reason = stock_incompatibility(classifier.spec, logit_affine_of(bundle.policy))
    write_model(classifier, bundle.policy, bundle.path / "model")
    return dataclasses.replace(bundle, stock=not reason)


def _classifier(case: Case) -> Classifier:
    torch.manual_seed(0)
    names = case.outcomes.class_names
    views = None
    if case.aggregation is not None:
        views = ViewSpec(2, 0.25, case.flips, VIEW, case.aggregation, 2, 4.0, None)
        if case.outcomes.positive is not None:
            views = dataclasses.replace(views, positive_class=case.outcomes.positive_class)

    backbone = AutoModel.from_config(
        _DINOV3 if case.family == "dinov3_vit" else CONFIGS[case.family],
        **({"add_pooling_layer": False} if case.family == "vit" else {}),
    )
    spec = ClassifierSpec(names, SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), case.family)
    spec = dataclasses.replace(spec, views=views)
    head = new_head(2 * backbone.config.hidden_size, spec)
    torch.nn.init.normal_(head.linear.weight, std=3.0)
    classifier = Classifier(backbone, head, spec).eval()
    with torch.no_grad():
        pixels = normalise(torch.from_numpy(noise(32)), spec)
        if views is None or case.outcomes.positive is None:
            head.linear.bias -= classifier(pixels).median(dim=0).values
        else:
            margin = class_log_odds(classifier(pixels).double().numpy(), 1)
            head.linear.bias[1] -= float(np.median(margin))
    return classifier


_DINOV3 = DINOv3ViTConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    patch_size=14,
    image_size=SIZE,
)


def _policy(case: Case, logits: np.ndarray, gate: np.ndarray | None) -> Policy:
    """Return a policy that tells the images apart."""
    labels = (logits + np.random.default_rng(0).gumbel(0, 3, logits.shape)).argmax(axis=1)
    calibrator = None if case.calibrator is None else registry.fit(case.calibrator, logits, labels)
    plain = softmax_policy(case.outcomes, 0.0, calibrator)
    middle = float(np.median(plain.confidence(logits)))
    given = SELECTIVE | {"outcomes": case.outcomes, "calibrator": calibrator}
    if gate is not None:
        return GatePolicy(
            kind="gate",
            **given,
            gate_slope=2.0,
            gate_intercept=-2 * float(np.median(gate)),
            answer_from=0.0,
        )
    n_outcomes = len(case.outcomes.names)
    if case.kind == "scrc":
        return ScrcPolicy(kind="scrc", **given, answer_from=(middle,) * n_outcomes)
    if case.kind == "sets":
        return ScrcPolicy(
            kind="scrc", **given, answer_from=(middle - 1,) * n_outcomes, single_from=0.7
        )
    if case.outcomes.positive is None:
        return softmax_policy(case.outcomes, middle, calibrator)
    return softmax_policy(case.outcomes, float(np.median(plain.margin(logits))), calibrator)


def _early_exit(case: Case, spec: ClassifierSpec, whole: np.ndarray) -> EarlyExit | None:
    """Return bounds that half of the images pass; None of a multiclass task."""
    if case.outcomes.positive is None or spec.views is None:
        return None
    low, high = np.quantile(class_log_odds(whole, 1), [0.25, 0.75]).tolist()
    return EarlyExit(spec.views.count, None, high, low, 0.1, 0.1, 40, 0, 0.0)
