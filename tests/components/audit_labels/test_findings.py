"""Planted errors, outliers, duplicates and a bad cluster are found, and little else."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.audit_labels.findings import find, label_scores, suspects
from tests.components.audit_labels.planted import N, Planted, planted


@pytest.fixture(scope="module")
def data() -> Planted:
    return planted()


def _audited(data: Planted) -> Any:
    """What `find` reads of the audited images."""
    return SimpleNamespace(features=data.features, labels=data.labels, groups=data.groups)


def test_flipped_labels_are_the_suspects(data: Planted) -> None:
    found = suspects(data.labels, data.probabilities)
    assert set(found.tolist()) == set(data.flipped)
    scores = label_scores(data.labels, data.probabilities)
    assert np.all(np.diff(scores[found]) >= 0)
    expected = data.probabilities[np.arange(N), data.labels]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_a_far_image_and_a_copy_are_found(data: Planted) -> None:
    found = find(_audited(data), data.probabilities, 0)
    assert found.outliers[0] == data.outlier
    assert len(found.outliers) < 0.1 * N
    pairs = [(pair.first, pair.second) for pair in found.near_duplicates]
    assert tuple(sorted(data.copies)) in pairs
    assert len(pairs) < 0.1 * N
    first = found.near_duplicates[0]
    assert data.labels[first.first] != data.labels[first.second], "contradictions come first"


def test_clusters_cover_all_images_worst_first(data: Planted) -> None:
    found = find(_audited(data), data.probabilities, 0)
    rows = np.concatenate([cluster.rows for cluster in found.clusters])
    assert sorted(rows.tolist()) == list(range(N))
    scores = [cluster.score for cluster in found.clusters]
    assert scores == sorted(scores)
    # One that the labels contradict is marked, and its worst image comes first.
    hard = dataclasses.replace(data, labels=np.where(data.blob == 0, 1 - data.truth, data.truth))
    worst = find(_audited(hard), data.probabilities, 0).clusters[0]
    assert worst.is_worse
    assert (data.blob[worst.rows] == 0).mean() > 0.9


def test_the_same_data_give_the_same_findings(data: Planted) -> None:
    first, second = (find(_audited(data), data.probabilities, 3) for _ in range(2))
    assert first.near_duplicates == second.near_duplicates
    np.testing.assert_array_equal(first.outlier_scores, second.outlier_scores)
    assert [c.rows.tolist() for c in first.clusters] == [c.rows.tolist() for c in second.clusters]
