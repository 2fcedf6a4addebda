"""Calibrators against reference values, each other, and their JSON form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.calibration import newton, registry
from components.shared.calibration.binning import Histogram
from components.shared.calibration.calibrator import Calibrator
from components.shared.calibration.dirichlet import STRENGTHS, Beta, Dirichlet
from components.shared.calibration.linear import Platt, Temperature, VectorScaling
from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.stats import calibration_error
from components.shared.stats.metrics import (
    Floats,
    Integers,
    log_softmax,
    nll_multiclass,
    sigmoid,
    softmax,
)
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


def _softened(labels: Integers) -> Floats:
    """(N,) Platt's targets of class 1, from his formula."""
    n_positive, n_negative = (labels == 1).sum(), (labels == 0).sum()
    return np.asarray(
        np.where(labels == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    )


def _logistic_peer(features: Floats, targets: Floats) -> tuple[Floats, float]:
    """scikit-learn's logistic regression on fractional targets: each sample once per class."""
    from sklearn.linear_model import LogisticRegression

    n = len(features)
    peer = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky", max_iter=1000).fit(
        np.tile(features, (2, 1)), np.repeat([0, 1], n), np.r_[1 - targets, targets]
    )
    return peer.coef_[0], float(peer.intercept_[0])


def _temperature_peer(logits: Floats, labels: Integers) -> float:
    """The temperature by minimisation of summed NLL and prior; ours is a root."""
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        nll = nll_multiclass(labels, logits * np.exp(-log_t)) * len(labels)
        return float(nll + log_t**2 / (2 * 0.5**2))

    found = minimize_scalar(loss, bounds=(-8, 8), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


def test_temperature() -> None:
    fitted = Temperature.fit(LOGITS, LABELS)
    assert fitted.temperature == pytest.approx(_temperature_peer(LOGITS, LABELS), abs=1e-6)
    residual = ((fitted.transform(LOGITS) - np.eye(2)[LABELS]) * LOGITS).sum()
    stationary = residual / fitted.temperature - np.log(fitted.temperature) / 0.25
    assert stationary == pytest.approx(0, abs=1e-9)


def test_temperature_where_first_order_recipes_stop_short() -> None:
    import torch

    torch.manual_seed(0)
    logits = torch.randn(500, 2, dtype=torch.float64) * 3
    draw = torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = (draw < (logits / 2).softmax(1)[:, 1]).long().numpy()
    assert labels.sum() == 240
    fitted = Temperature.fit(logits.numpy(), labels)
    assert fitted.temperature == pytest.approx(_temperature_peer(logits.numpy(), labels), abs=1e-6)
    # The maximum likelihood has T 2.11606 and NLL .463930; the prior costs a ten-thousandth.
    assert fitted.temperature == pytest.approx(2.116, abs=0.06)
    assert nll_multiclass(labels, fitted.log_probabilities(logits.numpy())) == pytest.approx(
        0.463930, abs=2e-4
    )


def test_platt_agrees_with_scikit_learn_on_his_targets() -> None:
    fitted = Platt.fit(LOGITS, LABELS)
    slope, intercept = _logistic_peer(MARGIN[:, None], _softened(LABELS))
    assert (fitted.slope[0], fitted.intercept[0]) == pytest.approx((slope[0], intercept), rel=1e-6)


def test_beta() -> None:
    """Its optimum has b = 0 here, so the others are a logistic regression on ln p alone."""
    fitted = Beta.fit(LOGITS, LABELS)
    log_p = log_softmax(LOGITS)
    slope, intercept = _logistic_peer(log_p[:, 1:], _softened(LABELS))
    assert (*fitted.a, *fitted.b, *fitted.c) == pytest.approx((slope[0], 0, intercept), rel=1e-6)
    gradient_of_b = ((fitted.transform(LOGITS)[:, 1] - _softened(LABELS)) * -log_p[:, 0]).mean()
    assert gradient_of_b > 0


def test_beta_keeps_its_coefficients_non_negative() -> None:
    """Positives among the lowest scores would give the unconstrained fit a negative a or b."""
    margin = np.array([-6.0, -5, -4, -1, 0, 1, 2, 3, 4, 5])
    labels = np.array([1, 1, 0, 0, 0, 0, 1, 1, 1, 1])
    fitted = Beta.fit(np.column_stack([np.zeros(10), margin]), labels)
    assert min(fitted.a[0], fitted.b[0]) == 0
    assert max(fitted.a[0], fitted.b[0]) > 0


@pytest.mark.parametrize("seed", range(30))
def test_beta_is_the_best_of_all_with_coefficients_that_are_not_negative(seed: int) -> None:
    """Labels that fall with the score gave coefficients of 0 with an intercept never fitted."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 3, int(rng.integers(12, 80)))
    a, b, c = rng.normal(size=3)
    p = log_softmax(np.column_stack([np.zeros(len(margin)), margin]))
    features = np.column_stack([p[:, 1], -p[:, 0], np.ones(len(margin))])
    labels = (rng.random(len(margin)) < sigmoid(features @ [a, b, c])).astype(np.int64)
    labels[:2] = 0, 1
    targets = _softened(labels)

    def loss(weights: Floats) -> float:
        score = features @ weights
        return float((np.logaddexp(0, score) - targets * score).mean())

    fitted = Beta.fit(np.column_stack([np.zeros(len(margin)), margin]), labels)
    bounds = [(0, None), (0, None), (None, None)]
    peer = min(
        minimize(loss, start, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15}).fun
        for start in ([1, 1, 0], [0, 0.5, 0], [0.5, 0, 0], [0, 0, 0])
    )
    assert loss(np.r_[fitted.a, fitted.b, fitted.c]) <= peer + 1e-9


def test_dirichlet() -> None:
    """Two classes without penalty: a logistic regression on both log-probabilities."""
    unregularised = Dirichlet.fit_penalised(LOGITS, LABELS, 0.0, 0.0)
    slopes, intercept = _logistic_peer(log_softmax(LOGITS), _softened(LABELS))
    weights = np.array(unregularised.weights)
    assert weights[1] - weights[0] == pytest.approx(slopes, rel=1e-4)
    assert np.diff(unregularised.intercept)[0] == pytest.approx(intercept, rel=1e-4)


def test_dirichlet_with_penalty() -> None:
    from scipy.optimize import minimize

    logits, labels = _three_classes()
    counts = np.bincount(labels)[labels]
    targets = np.repeat(1 / (counts + 2)[:, None] / 2, 3, axis=1)
    targets[np.arange(len(labels)), labels] = (counts + 1) / (counts + 2)

    def loss(parameters: Floats) -> float:
        w = parameters.reshape(3, 4)
        odir = (w[:, :3] ** 2).sum() - (np.diag(w) ** 2).sum()
        predicted = log_softmax(log_softmax(logits) @ w[:, :3].T + w[:, 3])
        return float(
            -(targets * predicted).sum(axis=1).mean()
            + 0.02 * odir / 6
            + 0.05 * (w[:, 3] ** 2).mean()
        )

    fitted = Dirichlet.fit_penalised(logits, labels, 0.02, 0.05)
    ours = loss(np.column_stack([fitted.weights, fitted.intercept]).ravel())
    peer = minimize(loss, np.eye(3, 4).ravel(), method="BFGS", options={"gtol": 1e-7}).fun
    assert ours <= peer + 1e-12
    assert ours == pytest.approx(peer, abs=1e-9)


def test_strengths_are_validated_on_other_groups() -> None:
    """Frames of one place are alike: by frame the weakest strength always looked best."""
    rng = np.random.default_rng(3)
    places = np.repeat(np.arange(25), 20)
    centre = rng.normal(size=(25, 4)) * 2
    label_of_place = np.arange(25) % 4
    logits = centre[places] + 0.05 * rng.normal(size=(500, 4)) + np.eye(4)[label_of_place[places]]
    labels = label_of_place[places]
    by_frame = Dirichlet.fit(logits, labels)
    by_group = Dirichlet.fit(logits, labels, [f"place {i}" for i in places])
    assert by_frame.off_diagonal == STRENGTHS[0]
    assert by_group.off_diagonal > STRENGTHS[0]


def test_isotonic_and_histogram() -> None:
    from sklearn.isotonic import IsotonicRegression

    peer = IsotonicRegression(out_of_bounds="clip").fit(MARGIN, _softened(LABELS))
    fitted = registry.fit("isotonic", LOGITS, LABELS)
    assert len(fitted.to_json()["knots"][0]) == 8
    assert _positive(fitted) == pytest.approx(peer.predict(AT[:, 1]), abs=1e-15)
    bins = np.digitize(sigmoid(MARGIN), [0.2, 0.4, 0.6, 0.8], right=True)
    means = [_softened(LABELS)[bins == k].mean() for k in range(5)]
    expected = np.array(means)[np.digitize(sigmoid(AT[:, 1]), [0.2, 0.4, 0.6, 0.8], right=True)]
    assert _positive(Histogram.fit_bins(LOGITS, LABELS, 5)) == pytest.approx(expected, abs=1e-15)


def test_vector_scaling_is_platt_for_two_classes_and_stationary_for_more() -> None:
    np.testing.assert_array_equal(
        VectorScaling.fit(LOGITS, LABELS).transform(AT), Platt.fit(LOGITS, LABELS).transform(AT)
    )
    logits, labels = _three_classes()
    fitted = VectorScaling.fit(logits, labels)
    counts = np.bincount(labels)[labels]
    targets = np.where(np.eye(3)[labels] == 1, (counts + 1)[:, None], 0.5) / (counts + 2)[:, None]
    residual = fitted.transform(logits) - targets
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
def test_separable_labels_leave_room_for_errors(name: str) -> None:
    """Twenty samples without an error do not show that there are none: P stays off 0 and 1."""
    margin = np.r_[-np.linspace(1, 3, 10), np.linspace(1, 3, 10)]
    logits, labels = np.column_stack([np.zeros(20), margin]), (margin > 0).astype(np.int64)
    fitted = registry.fit(name, logits, labels)
    values = fitted.log_probabilities(logits)
    assert (values.argmax(axis=1) == labels).all()
    assert values.min() > np.log(1e-4)


@pytest.mark.parametrize("kind", ["two values", "gaussian"])
@pytest.mark.parametrize("name", ["platt", "vector", "beta", "dirichlet"])
def test_large_logits_are_fitted_as_small_ones(name: str, kind: str) -> None:
    """A saturated sigmoid stopped the fits at their start from margins of 40 on, NaN from 700."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    sign = np.where((labels == 1) ^ (rng.random(400) < 0.1), 1.0, -1.0)
    margin = sign if kind == "two values" else sign * np.abs(rng.normal(1, 0.3, 400))
    losses = []
    for size in (5.0, 40, 80, 200, 700, 1e4):
        logits = np.column_stack([-size * margin / 2, size * margin / 2])
        fitted = registry.fit(name, logits, labels)
        losses.append(float(nll_multiclass(labels, fitted.log_probabilities(logits))))
    assert max(losses) < 0.35
    assert max(losses) - min(losses) < 0.02


def test_logits_that_determine_nothing_are_an_error_with_the_reason() -> None:
    logits = np.array([[-1e38, 1e38], [1e38, -1e38]] * 20)
    with pytest.raises(DataError, match="the best temperature lies beyond"):
        Temperature.fit(logits, np.array([1, 0, 0, 0] * 10))


def test_a_fit_that_is_not_stationary_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton, "_MAX_ITERATIONS", 1)
    with pytest.raises(DataError, match=r"the fit stopped at a gradient of .*, which must be 0"):
        Platt.fit(LOGITS, LABELS)


def test_published_table_of_resnet110_on_cifar10(real_logits: Path) -> None:
    """Kull et al. (NeurIPS 2019), tables 3 and 4: fitted on val, measured on test."""
    with np.load(real_logits, allow_pickle=False) as data:
        logits, labels = data["val_logits"].astype(np.float64), data["val_labels"]
        test_logits, test_labels = data["test_logits"].astype(np.float64), data["test_labels"]

    def nll(calibrator: Calibrator) -> float:
        return float(nll_multiclass(test_labels, calibrator.log_probabilities(test_logits)))

    temperature = Temperature.fit(logits, labels)
    assert temperature.temperature == pytest.approx(2.39501, abs=5e-3)
    assert nll(temperature) == pytest.approx(0.209261, abs=5e-5)
    probabilities = temperature.transform(test_logits)
    assert calibration_error.ece_top_label(test_labels, probabilities) == pytest.approx(
        0.011321, abs=2e-4
    )
    assert 10 * calibration_error.ece_classwise(test_labels, probabilities) == pytest.approx(
        0.04343, abs=1e-4
    )
    vector = VectorScaling.fit(logits, labels)
    # Smoothed targets are better than the published 0.206245 (class-wise .003691) and 0.205106.
    assert nll(vector) == pytest.approx(0.205034, abs=1e-5)
    assert 10 * calibration_error.ece_classwise(
        test_labels, vector.transform(test_logits)
    ) == pytest.approx(0.03542, abs=5e-5)
    dirichlet = nll(Dirichlet.fit(logits, labels))
    assert dirichlet == pytest.approx(0.2027, abs=5e-4)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0, np.nan]], [0], r"logits\[0\] is \[0.0, nan\], not finite"),
        ([[0, 1], [np.inf, 0]], [0, 1], r"logits\[1\]"),
        ([[0, 1]], [0, 1], r"labels are int64 \(2,\), expected integers \(1,\)"),
        ([[0, 1], [1, 0]], [0, 2], r"labels contain \[0, 2\], expected 0..1"),
        ([[0, 1], [1, 0]], [-1, 1], r"labels contain \[-1, 1\]"),
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
        ({"name": "temperature", "temperature": [1.0]}, "must be a finite number"),
        ({"name": "temperature", "temperature": 1.0, "t": 1}, "unknown key 't'"),
        (
            {"name": "platt", "slope": [float("nan")], "intercept": [0.0]},
            "slope=.* must hold finite numbers",
        ),
        ({"name": "platt", "slope": ["1"], "intercept": [0.0]}, "slope="),
        ({"name": "platt", "slope": [1.0, 2.0], "intercept": [0.0]}, "shapes that disagree"),
        ({"name": "isotonic", "knots": [[0.0, 1.0]], "values": [[0.0]]}, "shapes that disagree"),
        ({"name": ["platt"]}, "name=.* must be one of"),
        ({"name": "temperature", "temperature": 10**400}, "must be a finite number"),
        ({"name": "temperature", "temperature": 1e-300}, "must be a number > 0"),
        ({"name": "temperature", "temperature": True}, "must be a finite number"),
        ({"name": "platt", "slope": [1e308], "intercept": [0.0]}, "slope=.* must hold finite"),
        ({"name": "platt", "slope": [], "intercept": []}, "slope=.* must hold finite"),
        ({"name": "beta", "a": [1.0], "b": [1.0], "c": [[]]}, "c=.* must hold finite numbers"),
        ({"name": "beta", "a": [1.0], "b": [1.0], "c": [[1.0]]}, "c=.* must hold finite numbers"),
        (
            {
                "name": "dirichlet",
                "weights": [[1.0, 0.0], [0.0, 1.0]],
                "intercept": [[]],
                "off_diagonal": 1.0,
                "intercept_penalty": 1.0,
            },
            "intercept=.* must hold finite numbers",
        ),
        ({"name": "isotonic", "knots": [[1.0, 0.0]], "values": [[0.0, 1.0]]}, "knots must ascend"),
        ({"name": "isotonic", "knots": [[0.0, 1.0]], "values": [[0.0, 2.0]]}, "values has 2.0"),
        ({"name": "histogram", "frequencies": [[0.1, -0.1]]}, "frequencies has -0.1"),
        (
            {"name": "platt", "slope": [1.0] * 20_000, "intercept": [1.0] * 20_000},
            "is for 20000 classes, at most 10,000",
        ),
    ],
)
def test_edited_documents_are_refused(document: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        registry.parse(document, "calibrator.json")


def test_log_softmax_is_the_identity_calibration() -> None:
    np.testing.assert_allclose(Temperature(1.0).log_probabilities(LOGITS), log_softmax(LOGITS))
