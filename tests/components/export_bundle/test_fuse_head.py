"""Calibrator and threshold in the head: rounding at 0.5 gives the policy's decision."""

import numpy as np
import pytest
import torch

from components.export_bundle.fuse_head import (
    distilled_classifier,
    fuse_into_head,
    stock_incompatibility,
)
from components.shared.calibration import registry
from components.shared.calibration.linear import Temperature
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import softmax_policy
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.bundles import random_classifier

NAMES = ("None", "Roadwork")


def test_the_threshold_and_temperature_of_the_reference() -> None:
    head = torch.nn.Linear(1, 2)
    head.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.zeros(2)})
    raw, temperature, threshold = 0.4442993700, 1.7, 0.72
    policy = softmax_policy(
        Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"),
        float(np.log(threshold / (1 - threshold))) / temperature,
        Temperature(temperature),
    )
    fuse_into_head(head, logit_affine_of(policy))
    with torch.no_grad():
        fused = head(torch.tensor([[np.log(raw / (1 - raw))]], dtype=torch.float32)).softmax(1)[
            0, 1
        ]
    assert float(fused) == pytest.approx(0.33466242, abs=1e-7)


@pytest.mark.parametrize("threshold", [-7.3, -0.01, 0.0, 2.7, 11.1])
def test_fusing_flips_no_decision_in_float32(threshold: float) -> None:
    rng = np.random.default_rng(3)
    policy = softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), threshold)
    head = torch.nn.Linear(64, 2)
    torch.nn.init.normal_(head.weight)
    features = torch.from_numpy(rng.normal(size=(4000, 64)).astype(np.float32))
    with torch.no_grad():
        # Move every sample along the head's own direction to within a few thousandths of the
        # threshold.
        direction = head.weight[1] - head.weight[0]
        margin = features @ direction + head.bias[1] - head.bias[0]
        target = threshold + torch.from_numpy(rng.uniform(-3e-3, 3e-3, 4000).astype(np.float32))
        features += ((target - margin) / direction.square().sum())[:, None] * direction
        raw = policy.margin(head(features).numpy())
        fuse_into_head(head, logit_affine_of(policy))
        probability = head(features).softmax(1)[:, 1].numpy()
    clear = np.abs(raw - threshold) > 1e-5
    assert clear.mean() > 0.99
    assert ((np.round(probability) == 1) == (raw > threshold))[clear].all()
    assert ((probability >= 0.5) == (raw > threshold))[clear].all()


def test_a_tie_is_none_for_policy_and_validator() -> None:
    head = torch.nn.Linear(1, 2)
    head.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.zeros(2)})
    policy = softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 1.5)
    logits = head(torch.tensor([[1.5]])).detach()
    fuse_into_head(head, logit_affine_of(policy))
    probability = head(torch.tensor([[1.5]])).detach().softmax(1)[0, 1]
    assert policy.decide(logits.numpy()).tolist() == ["None"]
    assert np.round(float(probability)) == 0


def test_what_the_stock_pipeline_cannot_run_is_named() -> None:
    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    affine = logit_affine_of(softmax_policy(Outcomes.of(NAMES, "binary", "Roadwork"), 0.0))
    stock = ClassifierSpec(NAMES, 28, mean, std, "dinov2")
    assert stock_incompatibility(stock, affine) == ""
    vit = ClassifierSpec(NAMES, 28, mean, std, "vit")
    assert "no class for 'vit'" in stock_incompatibility(vit, affine)
    signs = Outcomes.of(("stop", "yield", "bus"))
    three = ClassifierSpec(signs.class_names, 28, mean, std, "dinov2")
    scaled = softmax_policy(signs, -1.0, Temperature(2.0))
    assert stock_incompatibility(three, logit_affine_of(scaled)) == ""
    rng = np.random.default_rng(0)
    bent = registry.fit("dirichlet", rng.normal(size=(300, 3)), rng.integers(0, 3, 300))
    assert stock_incompatibility(three, logit_affine_of(softmax_policy(signs, -1.0, bent))) == (
        "with 3 classes the dirichlet calibrator is not linear in the logits"
    )


def test_a_classifier_without_a_distilled_head_has_none() -> None:
    with pytest.raises(ValueError, match="no distilled head"):
        distilled_classifier(random_classifier("dinov2", NAMES))
