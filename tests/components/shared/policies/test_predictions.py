"""Predictions: the outcomes of a binary task and of several classes, in one form."""

import numpy as np
import pytest

from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.predictions import question
from components.shared.stats import calibration_error, metrics
from tests.components.evaluate.report.examples import class_predictions, predictions

SIGNS = ("speed_30", "stop", "workers_in_road", "yield", "no_entry")


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (Outcomes.of(("Plain", "Pothole")), "Pothole or Plain"),
        (
            Outcomes.of(SIGNS, "binary", "workers_in_road"),
            "workers_in_road against the rest of 5 classes",
        ),
        (Outcomes.of(SIGNS), "which of 5 classes"),
    ],
)
def test_the_question_says_what_is_decided(outcomes: Outcomes, expected: str) -> None:
    assert question(outcomes) == expected


def test_one_class_against_the_rest_counts_the_rest_together() -> None:
    _, shown = class_predictions(Outcomes.of(SIGNS, "binary", "workers_in_road"), n=200)
    _, several = class_predictions(Outcomes.of(SIGNS), n=200)
    assert shown.counts == {
        "not workers_in_road": 200 - several.counts["workers_in_road"],
        "workers_in_road": several.counts["workers_in_road"],
    }
    np.testing.assert_array_equal(shown.is_positive, several.truth == 2)
    np.testing.assert_allclose(shown.probability, several.probabilities[:, 2])
    # An image of "stop" that is taken for "yield" is wrong among five classes, right against one.
    assert several.error.sum() > shown.error.sum()


def test_losses_agree_between_the_forms() -> None:
    binary = predictions()
    np.testing.assert_allclose(
        binary.log_loss.mean(), metrics.nll(binary.is_positive, binary.log_odds)
    )
    _, several = class_predictions(Outcomes.of(SIGNS))
    expected = metrics.brier_multiclass(several.truth, several.probabilities)
    assert several.squared_error.mean() == pytest.approx(float(expected))
    correct, confidence = several.top_label
    np.testing.assert_array_equal(correct, ~several.error)
    np.testing.assert_allclose(confidence, several.probabilities.max(axis=1))
    assert calibration_error.ece(correct, confidence) > 0


def test_a_probability_of_zero_has_a_finite_loss() -> None:
    _, shown = class_predictions(Outcomes.of(SIGNS), signal=4000.0)
    assert np.isfinite(shown.log_loss).all()
