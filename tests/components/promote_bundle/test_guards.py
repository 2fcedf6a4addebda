"""Guards: each refuses what is shown to be worse, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest

from components.promote_bundle import guards
from components.promote_bundle.challenger import Guarantee, Observed
from components.promote_bundle.config import PromoteConfig
from components.promote_bundle.objectives import objective_of
from components.shared.policies.policy import Policy
from components.shared.serving.bundle import Bundle
from components.shared.stats.metrics import Bools
from components.shared.stats.slices import Slice, find_slices
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.components.promote_bundle.predicted import SOFTMAX, model, predictions, scrc

N = 600
TRUTH = np.arange(N) % 2 == 0
NIGHT = np.arange(N) % 3 == 0
GROUPS = tuple(f"g{i}" for i in range(N))
CONFIG = PromoteConfig(n_bootstrap=500)
MCC = objective_of("mcc", SOFTMAX)
SPEC = ClassifierSpec(("None", "Roadwork"), 28, (0.5,) * 3, (0.5,) * 3, "dinov2")


def _slices(night: Bools = NIGHT) -> tuple[Slice, ...]:
    column = ["night" if dark else "day" for dark in night.tolist()]
    return find_slices({"light": column}, GROUPS)


def test_a_slice_that_is_worse_refuses_although_the_model_is_better() -> None:
    theirs = model(TRUTH, 0.15, 1)
    # By day without an error, at night often wrong.
    wrong = NIGHT & (np.random.default_rng(0).random(N) < 0.4)
    ours = predictions(TRUTH, np.where(TRUTH ^ wrong, 2.0, -2.0))
    results = guards.compare_slices(CONFIG, MCC, ours, theirs, _slices())
    assert [(result.value, result.holds) for result in results] == [("night", False), ("day", True)]
    assert results[0].gain is not None
    assert results[0].interval is not None
    assert results[0].interval[1] < -CONFIG.slice_tolerance

    found = guards.slices_guard(CONFIG, results)
    assert not found.holds
    assert found.reason.startswith("1 of 2 slices worse by more than 0.05: light=night (-0.")
    json.dumps([result.to_json() for result in results], allow_nan=False)


def test_a_larger_tolerance_lets_the_slice_pass() -> None:
    theirs, ours = model(TRUTH, 0.1, 1), model(TRUTH, 0.14, 2)
    tolerant = PromoteConfig(n_bootstrap=500, slice_tolerance=0.5)
    results = guards.compare_slices(tolerant, MCC, ours, theirs, _slices())
    assert guards.slices_guard(tolerant, results).holds


def test_a_slice_of_few_groups_says_so_and_does_not_refuse() -> None:
    ours, theirs = model(TRUTH, 0.5, 1), model(TRUTH, 0.0, 2)
    results = guards.compare_slices(CONFIG, MCC, ours, theirs, _slices(np.arange(N) < 10))
    few = next(result for result in results if result.value == "night")
    assert few.interval is None
    assert few.reason == "too few groups: 10, an interval needs 16"
    assert few.holds
    assert "without an interval" not in guards.slices_guard(CONFIG, results).reason
    tolerant = PromoteConfig(n_bootstrap=500, slice_tolerance=0.99)
    held = guards.compare_slices(tolerant, MCC, theirs, theirs, _slices(np.arange(N) < 10))
    assert guards.slices_guard(tolerant, held).reason == (
        "2 slices, none with an interval: nothing is shown to be worse"
    )


def test_no_slices_at_all() -> None:
    found = guards.slices_guard(CONFIG, [])
    assert found.holds
    assert found.reason == "no slices: nothing is shown to be worse"


@pytest.mark.parametrize(
    ("challenger", "champion", "holds"),
    [
        (scrc(alpha=0.1), scrc(alpha=0.1), True),
        (scrc(alpha=0.05), scrc(alpha=0.1), True),
        (scrc(alpha=0.2), scrc(alpha=0.1), False),
        (scrc(delta=0.2), scrc(delta=0.1), False),
        (scrc(risk="fnr"), scrc(risk="error"), False),
        (SOFTMAX, scrc(), False),
        (scrc(), SOFTMAX, True),
        (SOFTMAX, SOFTMAX, True),
        (scrc(), None, True),
        (SOFTMAX, None, True),
    ],
)
def test_the_certified_risk_is_not_looser(
    challenger: Policy, champion: Policy | None, holds: bool
) -> None:
    found = guards.certified_risk(challenger, champion, ())
    assert found.holds is holds
    assert found.reason


def test_a_first_champion_is_not_spoken_of_as_one_of_two() -> None:
    assert guards.certified_risk(SOFTMAX, None, ()).reason == "the policy certifies no risk"
    assert guards.certified_risk(SOFTMAX, SOFTMAX, ()).reason == "neither policy certifies a risk"


@pytest.mark.parametrize(
    ("low", "max_group_images", "holds"), [(0.12, None, False), (0.08, None, True), (0.12, 5, True)]
)
def test_val_test_must_not_contradict_the_certificate(
    low: float, max_group_images: int | None, holds: bool
) -> None:
    guarantee = Guarantee(
        alpha=0.1,
        max_group_images=max_group_images,
        observed_risk=Observed(0.2, (low, 0.3)),
        observed_risk_per_image=Observed(0.05, (0.02, 0.09)),
    )
    found = guards.certified_risk(scrc(), None, [guarantee])
    assert found.holds is holds
    assert ("VAL_TEST shows 0.2000 (0.1200 to 0.3000)" in found.reason) is not holds


def test_a_worse_calibration_refuses() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 2, N)
    truth = rng.random(N) < 1 / (1 + np.exp(-margin))
    calibrated, certain = predictions(truth, margin), predictions(truth, 5 * margin)
    assert guards.calibration(CONFIG, calibrated, certain).holds
    assert guards.calibration(CONFIG, calibrated, calibrated).holds
    found = guards.calibration(CONFIG, certain, calibrated)
    assert not found.holds
    assert found.reason.endswith("(95 %): worse")


def test_a_form_that_was_not_exported_is_named_with_the_option(tmp_path: Path) -> None:
    plain, both = tmp_path / "plain", tmp_path / "both"
    for form in ("onnx", "onnx_int8"):
        (both / form).mkdir(parents=True)
    bundles = [Bundle(path, SOFTMAX, SPEC, stock=True) for path in (plain, both)]
    found = guards.forms(*bundles)
    assert not found.holds
    assert found.reason == (
        "the champion has onnx and onnx_int8, the challenger has not: export it with onnx in"
        " formats"
    )
    assert guards.forms(*reversed(bundles)).holds
    assert guards.forms(bundles[0], bundles[0]).reason.startswith("the champion has no form beside")


def test_the_latency_has_a_budget() -> None:
    assert guards.latency(9.94, 10).holds
    found = guards.latency(12.345, 10)
    assert (found.holds, found.reason) == (False, "12.3 ms an image, above the budget of 10 ms")
