"""The metrics by which models are selected, beside those of scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from components.shared.calibration.model_selection import selection_metrics
from components.shared.contracts.outcomes import Outcomes

RNG = np.random.default_rng(0)
LABELS = RNG.integers(5, size=300)
LOGITS = RNG.normal(size=(300, 5)) + 1.5 * np.eye(5)[LABELS]
NAMES = tuple("abcde")


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def test_five_classes_are_measured_as_five_classes() -> None:
    found = selection_metrics(LOGITS, LABELS, Outcomes.of(NAMES))
    decided, probabilities = LOGITS.argmax(axis=1), _softmax(LOGITS)
    one_hot = np.eye(5)[LABELS]

    assert found == pytest.approx(
        {
            "val_select/acc": sk.accuracy_score(LABELS, decided),
            "val_select/mcc": sk.matthews_corrcoef(LABELS, decided),
            "val_select/auroc": sk.roc_auc_score(LABELS, probabilities, multi_class="ovr"),
            "val_select/ap": sk.average_precision_score(one_hot, probabilities),
            "val_select/nll": sk.log_loss(LABELS, probabilities),
        },
        abs=1e-12,
    )


def test_one_class_against_the_rest_is_measured_as_two() -> None:
    found = selection_metrics(LOGITS, LABELS, Outcomes.of(NAMES, "binary", "c"))
    truth, probability = LABELS == 2, _softmax(LOGITS)[:, 2]

    assert found["val_select/acc"] == pytest.approx(sk.accuracy_score(truth, probability > 0.5))
    assert found["val_select/mcc"] == pytest.approx(sk.matthews_corrcoef(truth, probability > 0.5))
    assert found["val_select/auroc"] == pytest.approx(sk.roc_auc_score(truth, probability))


@pytest.mark.parametrize("decided", [np.zeros(300, dtype=np.int64), LABELS])
def test_matthews_correlation_of_extreme_decisions(decided: np.ndarray) -> None:
    found = selection_metrics(np.eye(5)[decided] * 9, LABELS, Outcomes.of(NAMES))
    assert found["val_select/mcc"] == pytest.approx(sk.matthews_corrcoef(LABELS, decided))
