"""Calibrators against reference values, each other, and their JSON form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.calibration import registry
from components.shared.calibration.binning import Histogram
from components.shared.calibration.calibrator import Calibrator
from components.shared.calibration.dirichlet import Beta, Dirichlet
from components.shared.calibration.linear import Platt, Temperature, VectorScaling
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.stats import calibration_error
from components.shared.stats.metrics import Floats, Integers, log_softmax, nll_multiclass, softmax
from tests.components.shared.stats.cal40 import MARGIN, TRUTH

LOGITS, LABELS = np.column_stack([np.zeros(40), MARGIN]), TRUTH.astype(np.int64)
AT = np.column_stack([np.zeros(5), [-3.0, -1.0, 0.0, 1.0, 3.0]])
ALL = list(registry.CLASSES)


def _positive(calibrator: Calibrator) -> Floats:
    return calibrator.transform(AT)[:, 1]


def _three_classes(seed: int = 0, count: int = 400) -> tuple[Floats, Integers]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 3)) * 2
    drawn = rng.random(count)[:, None] > np.cumsum(softmax(0.6 * logits + [0.3, 0, -0.2]), axis=1)
    return logits, drawn.sum(axis=1).astype(np.int64)


def test_temperature() -> None:
    fitted = Temperature.fit(LOGITS, LABELS)
    residual = fitted.transform(LOGITS) - np.eye(2)[LABELS]
    assert abs((residual * LOGITS).sum()) < 1e-10
    assert fitted.temperature == pytest.approx(1.15336117, abs=1e-8)
    assert nll_multiclass(LABELS, fitted.log_probabilities(LOGITS)) == pytest.approx(
        0.34167948, abs=5e-9
    )
    assert _positive(fitted) == pytest.approx(
        [0.06906808, 0.29587243, 0.5, 0.70412757, 0.93093192], abs=2e-8
    )


def test_temperature_where_first_order_recipes_stop_short() -> None:
    import torch

    torch.manual_seed(0)
    logits = torch.randn(500, 2, dtype=torch.float64) * 3
    draw = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = (draw < (logits / 2).softmax(1)[:, 1]).long().numpy()
    assert labels.sum() == 240
    fitted = Temperature.fit(logits.numpy(), labels)
    assert fitted.temperature == pytest.approx(
        2.1160583668, abs=5e-8
    )  # found by minimisation; ours is the root
    assert nll_multiclass(labels, logits.numpy()) == pytest.approx(0.555880, abs=5e-7)
    assert nll_multiclass(labels, fitted.log_probabilities(logits.numpy())) == pytest.approx(
        0.463930, abs=5e-7
    )


def test_platt_is_the_maximum_likelihood_fit() -> None:
    fitted = Platt.fit(LOGITS, LABELS)
    assert (*fitted.slope, *fitted.intercept) == pytest.approx((2.95981599, 5.96466505), abs=5e-9)
    assert _positive(fitted) == pytest.approx(
        [0.05142761, 0.95279271, 0.99743867, 0.99986693, 0.99999964], abs=5e-9
    )


def test_platt_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    peer = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(MARGIN[:, None], TRUTH)
    fitted = Platt.fit(LOGITS, LABELS)
    assert (fitted.slope[0], fitted.intercept[0]) == pytest.approx(
        (peer.coef_[0, 0], peer.intercept_[0]), rel=1e-4
    )


def test_beta() -> None:
    fitted = Beta.fit(LOGITS, LABELS)
    assert (*fitted.a, *fitted.b, *fitted.c) == pytest.approx(
        (2.27184568, 8.42441293, 3.72559321), abs=5e-8
    )
    residual = fitted.transform(LOGITS)[:, 1] - TRUTH
    features = np.column_stack([log_softmax(LOGITS), np.ones(40)])
    assert np.abs(residual @ features).max() < 1e-9
    assert _positive(fitted) == pytest.approx(
        [0.05781209, 0.96710897, 0.99966136, 0.99999923, 1], abs=5e-9
    )


def test_beta_keeps_its_coefficients_non_negative() -> None:
    """Positives among the lowest scores would give the unconstrained fit a negative a or b."""
    margin = np.array([-6.0, -5, -4, -1, 0, 1, 2, 3, 4, 5])
    labels = np.array([1, 1, 0, 0, 0, 0, 1, 1, 1, 1])
    fitted = Beta.fit(np.column_stack([np.zeros(10), margin]), labels)
    assert min(fitted.a[0], fitted.b[0]) == 0
    assert max(fitted.a[0], fitted.b[0]) > 0


def test_dirichlet() -> None:
    unregularised = Dirichlet.fit_penalised(LOGITS, LABELS, 0.0, 0.0)
    np.testing.assert_allclose(
        unregularised.transform(AT), Beta.fit(LOGITS, LABELS).transform(AT), atol=1e-7
    )
    odir = _positive(Dirichlet.fit_penalised(LOGITS, LABELS, 1e-2, 1e-2))
    assert odir == pytest.approx([0.06575746, 0.98303023, 0.99998967, 1, 1], abs=2e-8)


def test_isotonic_and_histogram() -> None:
    fitted = registry.fit("isotonic", LOGITS, LABELS)
    assert len(fitted.to_json()["knots"][0]) == 8
    assert _positive(fitted) == pytest.approx([0, 1, 1, 1, 1], abs=1e-15)
    assert _positive(Histogram.fit_bins(LOGITS, LABELS, 5)) == pytest.approx(
        [0.1875, 1, 1, 1, 1], abs=1e-15
    )


def test_vector_scaling_is_platt_for_two_classes_and_stationary_for_more() -> None:
    np.testing.assert_array_equal(
        VectorScaling.fit(LOGITS, LABELS).transform(AT), Platt.fit(LOGITS, LABELS).transform(AT)
    )
    logits, labels = _three_classes()
    fitted = VectorScaling.fit(logits, labels)
    residual = fitted.transform(logits) - np.eye(3)[labels]
    assert np.abs((residual * logits).mean(axis=0)).max() < 1e-10
    assert np.abs(residual.mean(axis=0)).max() < 1e-10


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_calibrator_improves_and_survives_json(name: str, n_classes: int) -> None:
    logits, labels = _three_classes() if n_classes == 3 else (LOGITS, LABELS)
    fitted = registry.fit(name, logits, labels)
    assert (
        nll_multiclass(labels, fitted.log_probabilities(logits))
        < nll_multiclass(labels, logits) + 0.02
    )
    probabilities = fitted.transform(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert np.isfinite(fitted.log_probabilities(1e4 * logits)).all()
    again = registry.parse(json.loads(json.dumps(fitted.to_json())), "calibrator.json")
    np.testing.assert_array_equal(again.transform(logits), probabilities)
    affine = fitted.affine(n_classes)
    assert (affine is not None) == (
        name in ("temperature", "vector") or (name, n_classes) == ("platt", 2)
    )
    if affine is not None:
        np.testing.assert_allclose(
            softmax(affine[0] * logits + affine[1]), probabilities, atol=1e-12
        )


@pytest.mark.parametrize("name", ALL)
def test_separable_labels_leave_everything_finite(name: str) -> None:
    margin = np.array([-3.0, -2, -1, 1, 2, 3])
    fitted = registry.fit(
        name, np.column_stack([np.zeros(6), margin]), (margin > 0).astype(np.int64)
    )
    values = fitted.log_probabilities(np.column_stack([np.zeros(6), margin]))
    assert np.isfinite(values).all()
    assert (values.argmax(axis=1) == (margin > 0)).all()


def test_published_table_of_resnet110_on_cifar10(real_logits: Path) -> None:
    """Kull et al. (NeurIPS 2019), tables 3 and 4: fitted on val, measured on test."""
    with np.load(real_logits, allow_pickle=False) as data:
        logits, labels = data["val_logits"].astype(np.float64), data["val_labels"]
        test_logits, test_labels = data["test_logits"].astype(np.float64), data["test_labels"]

    def nll(calibrator: Calibrator) -> float:
        return float(nll_multiclass(test_labels, calibrator.log_probabilities(test_logits)))

    temperature = Temperature.fit(logits, labels)
    assert temperature.temperature == pytest.approx(2.39501, abs=5e-6)
    assert nll(temperature) == pytest.approx(0.209261, abs=2e-6)
    probabilities = temperature.transform(test_logits)
    assert calibration_error.ece_top_label(test_labels, probabilities) == pytest.approx(
        0.011321, abs=2e-5
    )
    assert 10 * calibration_error.ece_classwise(test_labels, probabilities) == pytest.approx(
        0.04343, abs=5e-6
    )
    vector = VectorScaling.fit(logits, labels)
    assert nll(vector) == pytest.approx(0.206245, abs=3e-4)
    assert 10 * calibration_error.ece_classwise(
        test_labels, vector.transform(test_logits)
    ) == pytest.approx(0.03691, abs=5e-4)
    dirichlet = nll(Dirichlet.fit(logits, labels))
    assert dirichlet == pytest.approx(0.205106, abs=1.5e-3)
    assert dirichlet < nll(temperature) - 0.004


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0, np.nan]], [0], r"logits\[0\] is \[0.0, nan\], not finite"),
        ([[0, 1], [np.inf, 0]], [0, 1], r"logits\[1\]"),
        ([[0, 1]], [0, 1], r"labels are int64 \(2,\), expected integers \(1,\)"),
        ([[0, 1], [1, 0]], [0, 2], r"labels contain \[0, 2\], expected 0..1"),
        ([[0, 1], [1, 0]], [-1, 1], r"labels contain \[-1, 1\]"),
        ([[0, 1], [1, 0]], [1, 1], r"class\(es\) \[0\] have no samples"),
        ([[0], [1]], [0, 0], r"logits have shape \(2, 1\)"),
        ([[0, 1]], [0.5], "labels are float64"),
    ],
)
def test_bad_samples_are_named(logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Temperature.fit(np.array(logits, dtype=np.float64), np.array(labels))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "must be a JSON object, is list"),
        ({"name": "magic"}, "name='magic' must be one of temperature, platt"),
        ({"name": "temperature"}, "temperature is missing"),
        ({"name": "temperature", "temperature": -1.0}, "temperature=-1.0 must be a number > 0"),
        ({"name": "temperature", "temperature": [1.0]}, "must be a number"),
        ({"name": "temperature", "temperature": 1.0, "t": 1}, "unknown key 't'"),
        (
            {"name": "platt", "slope": [float("nan")], "intercept": [0.0]},
            "slope=.* must hold finite numbers",
        ),
        ({"name": "platt", "slope": ["1"], "intercept": [0.0]}, "slope="),
        ({"name": "platt", "slope": [1.0, 2.0], "intercept": [0.0]}, "shapes that disagree"),
        ({"name": "isotonic", "knots": [[0.0, 1.0]], "values": [[0.0]]}, "shapes that disagree"),
    ],
)
def test_edited_documents_are_refused(document: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        registry.parse(document, "calibrator.json")


def test_log_softmax_is_the_identity_calibration() -> None:
    np.testing.assert_allclose(Temperature(1.0).log_probabilities(LOGITS), log_softmax(LOGITS))
