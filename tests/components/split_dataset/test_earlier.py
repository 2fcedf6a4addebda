"""Recorded splits meet data that have grown: labels change, groups are joined or renamed."""

from components.shared.data.dataset import Sample
from components.shared.data.lineage import Recorded
from components.split_dataset.earlier import earlier_splits

RECORDED = {
    "a1": Recorded("A", "TRAIN"),
    "a2": Recorded("A", "TRAIN"),
    "b1": Recorded("B", "VAL_TEST"),
}


def _sample(sample_id: str, group: str, label: int = 0) -> Sample:
    return Sample(sample_id, label, group, "roads", sample_id, sample_id, {})


def test_a_sample_keeps_its_split_under_another_label_and_another_group() -> None:
    found = earlier_splits([_sample("a1", "Z", label=1), _sample("a2", "Z")], RECORDED)
    assert found.split_of == {"Z": "TRAIN"}
    assert found.group_of == {"a1": "Z", "a2": "Z"}


def test_new_images_of_a_group_join_it_even_where_its_old_images_are_gone() -> None:
    found = earlier_splits([_sample("a1", "A"), _sample("a3", "A"), _sample("b2", "B")], RECORDED)
    assert found.split_of == {"A": "TRAIN", "B": "VAL_TEST"}
    assert not found.excluded


def test_a_new_group_has_no_split_yet() -> None:
    found = earlier_splits([_sample("c1", "C")], RECORDED)
    assert (found.group_of, found.split_of) == ({"c1": "C"}, {})


def test_new_images_that_connect_different_splits_are_excluded_and_the_old_ones_stay() -> None:
    samples = [_sample("a1", "A"), _sample("b1", "A"), _sample("x", "A", label=1)]
    found = earlier_splits(samples, RECORDED)
    assert found.excluded == {"x": ("TRAIN", "VAL_TEST")}
    assert {i: found.split_of[found.group_of[i]] for i in ("a1", "b1")} == {
        "a1": "TRAIN",
        "b1": "VAL_TEST",
    }


def test_new_images_that_connect_groups_of_one_split_are_kept() -> None:
    recorded = RECORDED | {"c1": Recorded("C", "TRAIN")}
    samples = [_sample("a1", "A"), _sample("c1", "A"), _sample("x", "A")]
    found = earlier_splits(samples, recorded)
    assert found.split_of == {"A": "TRAIN"}
    assert not found.excluded
