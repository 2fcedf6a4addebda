"""Each class against the rest, beside scikit-learn."""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics as peer

from components.evaluate.report.per_class import COLUMNS, measure_classes
from components.shared.contracts.outcomes import Outcomes
from tests.components.evaluate.report.examples import class_predictions


@pytest.mark.parametrize("names", [("Plain", "Pothole"), ("a", "b", "c"), tuple("abcde")])
def test_every_class_has_the_metrics_of_scikit_learn(names: tuple[str, ...]) -> None:
    _, shown = class_predictions(Outcomes.of(names), n=240)
    rows = measure_classes(shown, 100, 0)
    expected = peer.precision_recall_fscore_support(shown.truth, shown.decision, zero_division=0)
    assert [row.name for row in rows] == list(names)
    assert [row.n_images for row in rows] == expected[3].tolist()
    assert [row.n_decided for row in rows] == np.bincount(shown.decision).tolist()

    for number, row in enumerate(rows):
        assert row.metrics.keys() == COLUMNS.keys()
        for name, values in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert row.metrics[name]["value"] == pytest.approx(values[number])
        area = peer.roc_auc_score(shown.truth == number, shown.probabilities[:, number])
        assert row.metrics["auroc"]["value"] == pytest.approx(area)
        assert row.metrics["ece"].get("calibrated_95") is not None
        assert row.metrics["answered"]["value"] == 1


def test_a_class_of_few_groups_has_no_interval_and_an_absent_one_no_value() -> None:
    names = (*(f"class {k}" for k in range(12)), "never seen")
    _, shown = class_predictions(Outcomes.of(names[:12]), n=120)
    rows = measure_classes(shown, 100, 0)
    assert all(row.n_groups < 16 for row in rows)
    assert all(row.metrics["recall"]["interval_95"] is None for row in rows)

    _, seen = class_predictions(Outcomes.of(names), n=120)
    keep = seen.truth != 12
    absent = dataclasses.replace(
        seen,
        truth=seen.truth[keep],
        decision=seen.decision[keep],
        probabilities=seen.probabilities[keep],
        confidence=seen.confidence[keep],
        groups=tuple(np.array(seen.groups)[keep].tolist()),
        answered=seen.answered[keep],
        answer_sets=seen.answer_sets[keep],
    )
    last = measure_classes(absent, 100, 0)[-1]
    assert (last.n_images, last.n_groups) == (0, 0)
    assert last.metrics["recall"] == {"value": None, "interval_95": None}
    assert last.metrics["f1"]["value"] is None
    assert last.metrics["auroc"]["value"] is None
