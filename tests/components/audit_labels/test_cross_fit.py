"""Heads that have seen no image of the group that they predict."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from components.audit_labels.cross_fit import cross_fitted, folds_by_group, seed_of

NAMES = ("None", "Roadwork")


def _data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(2), 60)
    features = rng.normal(size=(120, 5)).astype(np.float32)
    features[:, 0] += 2 * labels
    return features, labels, [f"place{n // 3}" for n in range(120)]


def test_no_group_is_predicted_by_a_head_that_has_seen_it() -> None:
    features, labels, groups = _data()
    folds = folds_by_group(labels, groups, NAMES, 5, 0)
    assert not isinstance(folds, str)
    assert sorted(row for _, held_out in folds for row in held_out.tolist()) == list(range(120))
    for train, held_out in folds:
        assert not {groups[r] for r in train} & {groups[r] for r in held_out}
        assert set(labels[train].tolist()) == {0, 1}

    found = cross_fitted(features, labels, folds)
    train, held_out = folds[0]
    scaler = StandardScaler().fit(features[train])
    head = LogisticRegression(C=found.inverse_penalty, max_iter=1000)
    head.fit(scaler.transform(features[train]), labels[train])
    margin = scaler.transform(features[held_out]) @ head.coef_[0] + head.intercept_[0]
    np.testing.assert_allclose(found.probabilities[held_out, 1], expit(margin), atol=1e-6)
    assert found.log_loss_of_frequencies == pytest.approx(np.log(2), abs=1e-6)
    assert found.explained > 0.3


def test_noise_is_explained_by_nothing() -> None:
    features, labels, groups = _data()
    noise = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    folds = folds_by_group(labels, groups, NAMES, 5, 0)
    assert not isinstance(folds, str)
    assert cross_fitted(noise, labels, folds).explained < 0.02


def test_too_few_groups_are_an_answer() -> None:
    _, labels, groups = _data()
    two = ["a" if n < 90 else "b" for n in range(120)]
    answer = folds_by_group(labels, two, (*NAMES, "Flooding"), 5, 0)
    assert answer == (
        "class Flooding has 0 group(s) in TRAIN and VAL_SELECT; cross-fitting needs 2"
    )
    folds = folds_by_group(labels, [f"{g}-{n % 2}" for n, g in enumerate(two)], NAMES, 5, 0)
    assert isinstance(folds, str) or len(folds) == 2
    assert len(folds_by_group(labels, groups, NAMES, 5, 3)) == 5


def test_any_seed_of_the_phase_is_one_of_scikit_learn() -> None:
    assert 0 <= seed_of(2**62) < 2**32
    assert seed_of(0) != seed_of(1)
