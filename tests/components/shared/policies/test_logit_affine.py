"""The stored logits decide as the policy does, whatever the calibrator."""

import numpy as np
import pytest

from components.shared.calibration import registry
from components.shared.calibration.binning import Histogram, Isotonic
from components.shared.calibration.calibrator import Calibrator
from components.shared.calibration.dirichlet import Beta
from components.shared.calibration.linear import Platt, Temperature
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logit_affine import logit_affine_of
from components.shared.policies.policy import softmax_policy
from tests.components.shared.stats.cal40 import MARGIN, TRUTH

LOGITS, LABELS = np.column_stack([np.zeros(40), MARGIN]), TRUTH.astype(np.int64)


@pytest.mark.parametrize("name", [*registry.CLASSES, None])
@pytest.mark.parametrize("positive", ["None", "Roadwork"])
@pytest.mark.parametrize("threshold", [-1.0, 0.3])
def test_stored_logits_decide_as_the_policy(
    name: str | None, positive: str, threshold: float
) -> None:
    calibrator = None if name is None else registry.fit(name, LOGITS, LABELS)
    policy = softmax_policy(
        Outcomes.of(("None", "Roadwork"), "binary", positive), threshold, calibrator
    )
    affine = logit_affine_of(policy)
    logits = np.random.default_rng(0).normal(size=(3000, 2)) * 3
    stored = affine.scale * logits + affine.offset
    np.testing.assert_allclose(affine.inverse(stored), logits, atol=1e-9)
    if affine.decides:
        others = 1 - policy.outcomes.positive_index
        margin = stored[:, policy.outcomes.positive_index] - stored[:, others]
        clear = np.abs(margin) > 1e-9
        assert clear.mean() > 0.99
        assert ((margin > 0) == policy.decision(logits))[clear].all()
    else:
        assert name == "histogram"
        assert "does not rise" in affine.reason
    linear = name in (None, "temperature", "platt", "vector")
    assert (affine.reason == "") == linear
    if linear:
        stated = 1 / (1 + np.exp(-(policy.margin(logits) - threshold)))
        np.testing.assert_allclose(1 / (1 + np.exp(-margin)), stated, atol=1e-9)


@pytest.mark.parametrize(
    ("calibrator", "size"),
    [
        (Platt((5e-4,), (0.1,)), 1e4),
        (Temperature(2000.0), 1e4),
        (Beta((0.01,), (0.02,), (3.0,)), 1e3),
        (Isotonic(((-3e4, -2e4, 2e4),), ((0.1, 0.4, 0.9),)), 1e4),
    ],
)
@pytest.mark.parametrize("threshold", [0.0, 0.7, -1.0])
def test_large_logits_are_decided_as_the_policy_does(
    calibrator: Calibrator, size: float, threshold: float
) -> None:
    """A threshold beyond 60 on the raw log-odds was taken for one of 60."""
    policy = softmax_policy(
        Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), threshold, calibrator
    )
    affine = logit_affine_of(policy)
    logits = np.random.default_rng(0).normal(size=(20_000, 2)) * size
    stored = affine.scale * logits + affine.offset
    assert affine.decides
    assert ((stored[:, 1] > stored[:, 0]) == policy.decision(logits)).all()


def test_a_threshold_never_reached_says_always_the_same() -> None:
    calibrator = Histogram(((0.2, 0.3, 0.4),))
    affine = logit_affine_of(
        softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 0.0, calibrator)
    )
    assert affine.decides
    stored = (affine.scale * LOGITS + affine.offset).astype(np.float32)
    assert (stored[:, 1] < stored[:, 0]).all()
    # What defers needs the logits themselves, of which float32 has to keep enough.
    np.testing.assert_allclose(affine.inverse(stored.astype(np.float64)), LOGITS, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "calibrator", "reason"),
    [
        (("None", "Roadwork"), Platt((5e-4,), (0.1,)), "platt calibrator's scale 0.0005 cannot"),
        (("None", "Roadwork"), Platt((-5e-4,), (0.1,)), "does not rise"),
        (("a", "b", "Roadwork"), Temperature(2000.0), "temperature calibrator's scale 0.0005"),
        (("None", "Roadwork"), Histogram(((0.9, 0.1),)), "does not rise"),
        (
            ("a", "b", "Roadwork"),
            Platt((1.0,) * 3, (0.0,) * 3),
            "3 classes the platt calibrator is not",
        ),
        (("a", "b", "Roadwork"), Temperature(2.0), ""),
    ],
)
def test_a_map_that_lacks_the_calibrator_says_why(
    names: tuple[str, ...], calibrator: Calibrator, reason: str
) -> None:
    assert (
        reason
        in logit_affine_of(
            softmax_policy(Outcomes.of(names, "binary", "Roadwork"), 0.0, calibrator)
        ).reason
    )
