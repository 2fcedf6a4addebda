"""What a model's classes mean for the answers."""

import numpy as np
import pytest

from components.shared.contracts.errors import DataError
from components.shared.contracts.outcomes import Outcomes

SIGNS = ("stop", "yield", "priority")


@pytest.mark.parametrize(
    ("names", "task", "positive_class", "expected"),
    [
        (("None", "Roadwork"), None, None, ("None", "Roadwork")),
        (("Roadwork", "None"), None, None, ("None", "Roadwork")),
        (("Plain", "Pothole"), None, None, ("Plain", "Pothole")),
        (("Plain", "Pothole"), None, "Plain", ("Pothole", "Plain")),
        (("Plain", "Pothole"), "multiclass", None, ("Plain", "Pothole")),
        (SIGNS, None, None, SIGNS),
        (SIGNS, "binary", "yield", ("not yield", "yield")),
        (("None", "Roadwork", "Unclear"), "binary", None, ("not Roadwork", "Roadwork")),
    ],
)
def test_what_is_left_automatic_follows_from_the_classes(
    names: tuple[str, ...],
    task: str | None,
    positive_class: str | None,
    expected: tuple[str, ...],
) -> None:
    found = Outcomes.of(names, task, positive_class)
    assert found.names == expected
    assert found.task == ("multiclass" if found.positive is None else "binary")


def test_a_binary_task_of_many_classes_names_the_one_that_is_sought() -> None:
    with pytest.raises(DataError, match=r"needs a positive_class; name one of them, or use task="):
        Outcomes.of(SIGNS, "binary")
    with pytest.raises(DataError, match=r"positive_class='Stop' is not in \['stop', 'yield'"):
        Outcomes.of(SIGNS, None, "Stop")


def test_a_multiclass_task_has_no_positive_class() -> None:
    found = Outcomes.of(SIGNS)
    assert found.positive_class is None
    with pytest.raises(DataError, match="has no positive class; use task=binary"):
        assert np.isfinite(found.positive_index)
