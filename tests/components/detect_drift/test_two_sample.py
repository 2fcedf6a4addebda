"""Two-sample tests: closed forms, exact levels without a shift, power with one."""

import numpy as np
import pytest

from components.detect_drift.two_sample import (
    N_FOLDS,
    RIDGE,
    classifier_test,
    mmd_test,
    permuted_labels,
    standardised,
)
from components.shared.stats.metrics import auroc

N_OLD, N_NEW, N_PERMUTATIONS = 40, 24, 99
IS_NEW = np.repeat([False, True], [N_OLD, N_NEW])


def _features(shift: float, seed: int, width: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(N_OLD + N_NEW, width)) @ rng.normal(size=(width, width))
    values[IS_NEW, 0] += shift * values[:, 0].std()
    return values


def test_the_classifier_test_is_that_of_folds_fitted_one_by_one() -> None:
    """Each fold's ridge regression by its primal equations, scores and AUROC by the library."""
    values = standardised(_features(1.0, seed=1))
    labels = permuted_labels(IS_NEW, N_PERMUTATIONS, seed=5)
    found = classifier_test(values, labels, seed=5)

    n, d = values.shape
    fold = np.random.default_rng([5, n, 1]).permutation(n) % N_FOLDS
    ridge = RIDGE * (values**2).sum() / n  # of the kernel values @ values.T
    statistics = []
    for truth in labels.T:
        scores = np.empty(n)
        for k in range(N_FOLDS):
            fitted = values[fold != k]
            weights = np.linalg.solve(
                fitted.T @ fitted + ridge * np.eye(d),
                fitted.T @ (truth[fold != k] - truth.mean()),
            )
            scores[fold == k] = values[fold == k] @ weights
        if not statistics:
            np.testing.assert_allclose(found.scores, scores, atol=1e-10)
        statistics.append(float(auroc(truth == 1, scores)))
    assert found.statistic == pytest.approx(statistics[0])
    assert found.p_value == np.mean(np.array(statistics) >= statistics[0] - 1e-12)


def test_the_discrepancy_is_that_of_its_definition() -> None:
    values = standardised(_features(1.0, seed=2))
    labels = permuted_labels(IS_NEW, N_PERMUTATIONS, seed=5)
    squared = ((values[:, None] - values[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-squared / np.median(squared[np.triu_indices(len(values), 1)]))

    def definition(new: np.ndarray) -> float:
        def mean(rows: np.ndarray) -> float:
            block = kernel[np.ix_(rows, rows)]
            return (block.sum() - np.trace(block)) / (len(rows) * (len(rows) - 1))

        old, rows = np.flatnonzero(new == 0), np.flatnonzero(new == 1)
        return mean(old) + mean(rows) - 2 * kernel[np.ix_(old, rows)].mean()

    statistics = np.array([definition(column) for column in labels.T])
    found = mmd_test(values, labels)
    assert found.statistic == pytest.approx(statistics[0])
    assert found.p_value == np.mean(statistics >= statistics[0] - 1e-12)


def test_permutations_keep_the_sizes_and_begin_with_what_was_observed() -> None:
    labels = permuted_labels(IS_NEW, N_PERMUTATIONS, seed=3)
    assert labels.shape == (N_OLD + N_NEW, 1 + N_PERMUTATIONS)
    np.testing.assert_array_equal(labels[:, 0], IS_NEW)
    assert (labels.sum(axis=0) == N_NEW).all()
    assert len(np.unique(labels, axis=1).T) == 1 + N_PERMUTATIONS
    np.testing.assert_array_equal(labels, permuted_labels(IS_NEW, N_PERMUTATIONS, seed=3))


def test_columns_without_variation_are_left_out() -> None:
    values = np.column_stack([np.arange(6.0), np.full(6, 7.1), np.full(6, 0.0)])
    found = standardised(values.astype(np.float32))
    assert found.shape == (6, 1)
    assert (found.mean(), found.std()) == pytest.approx((0, 1))


def test_false_alarms_come_at_the_stated_rate_and_a_shift_is_found() -> None:
    """150 draws at a level of 0.1: 15 are expected, and 27 or more in one of a thousand."""
    alarms = {"classifier": 0, "mmd": 0}
    n_draws, level = 150, 0.1
    for draw in range(n_draws):
        values = standardised(_features(0.0, seed=draw))
        labels = permuted_labels(IS_NEW, N_PERMUTATIONS, seed=draw)
        alarms["classifier"] += classifier_test(values, labels, draw).p_value <= level
        alarms["mmd"] += mmd_test(values, labels).p_value <= level
    assert all(4 <= count <= 27 for count in alarms.values()), alarms

    values = standardised(_features(6.0, seed=0))
    labels = permuted_labels(IS_NEW, N_PERMUTATIONS, seed=0)
    assert classifier_test(values, labels, 0).p_value == 1 / (1 + N_PERMUTATIONS)
    assert mmd_test(values, labels).p_value <= 0.05


def test_equal_images_are_no_drift() -> None:
    values = standardised(np.ones((N_OLD + N_NEW, 3)))
    labels = permuted_labels(IS_NEW, N_PERMUTATIONS, seed=0)
    assert classifier_test(values, labels, 0).p_value == 1
    assert mmd_test(values, labels).p_value == 1
