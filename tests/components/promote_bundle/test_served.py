"""The champion is scored by the code that users run, on the images as they are stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from components.promote_bundle.challenger import Images
from components.promote_bundle.served import median_latency_ms, served_predictions, size_problem
from components.shared.data.dataset import Dataset
from tests.bundles import SIZE, write_dataset
from tests.promotion import CLASS_NAMES, Run


def test_a_served_bundle_decides_as_its_saved_logits_do(best: Run) -> None:
    challenger = best.challenger()
    served, saved = served_predictions(challenger.bundle, challenger.images), challenger.predictions
    assert saved is not None
    assert served.decision.tolist() == saved.decision.tolist()
    assert served.truth.tolist() == saved.truth.tolist()
    assert served.groups == saved.groups
    np.testing.assert_allclose(served.log_odds, saved.log_odds, atol=1e-4)


def test_some_images_are_scored_in_their_order(best: Run) -> None:
    challenger = best.challenger()
    rows = np.array([70, 3, 40])
    some = served_predictions(challenger.bundle, challenger.images.take(rows))
    assert challenger.predictions is not None
    np.testing.assert_allclose(some.log_odds, challenger.predictions.log_odds[rows], atol=1e-4)


def test_images_that_are_stored_larger_are_reduced(best: Run, tmp_path: Path) -> None:
    write_dataset(tmp_path / "large", CLASS_NAMES, n_images=20, size=2 * SIZE)
    images = Images(Dataset.open(tmp_path / "large"), np.arange(20))
    found = served_predictions(best.challenger().bundle, images)
    assert len(found.decision) == 20


def test_images_that_are_stored_smaller_are_no_input(best: Run) -> None:
    spec = best.challenger().bundle.spec
    assert size_problem(spec, SIZE) == ""
    assert size_problem(spec, 2 * SIZE) == ""
    problem = size_problem(replace(spec, image_size=2 * SIZE), SIZE)
    assert problem == (
        "the champion takes images of 112 pixels, the data set has them at 56; ingest with"
        " image_size=112 or more"
    )


def test_the_latency_is_that_of_one_image(best: Run) -> None:
    challenger = best.challenger()
    assert 0 < median_latency_ms(challenger.bundle, challenger.images) < 5000
