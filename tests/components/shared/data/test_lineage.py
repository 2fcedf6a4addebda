"""The record of a lineage, in a folder and in a real store: a chain that only grows."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ArtifactError
from components.shared.data.lineage import Lineage, LineageConflictError, Recorded, name_problem

ROWS = {"a": Recorded("place, north", "TRAIN"), "b": Recorded("place1", "VAL_TEST")}
MORE = ROWS | {"c": Recorded("place2", "VAL_CALIB")}

Open = Callable[[], Lineage]


@pytest.fixture
def opened(lineages: None) -> Open:
    """Open the lineage `roads` anew at every call."""
    del lineages

    def again() -> Lineage:
        lineage = Lineage.open("roads")
        assert lineage is not None
        return lineage

    return again


def _append(lineage: Lineage, rows: dict[str, Recorded], request: str, previous: str) -> None:
    lineage.append(
        rows,
        request=request,
        previous=previous,
        salt="0-3",
        near_duplicate_distance=8,
        n_groups={"VAL_CALIB": 9},
    )


def test_a_chain_grows_and_every_request_keeps_what_it_started_from(opened: Open) -> None:
    assert opened().entries() == []
    assert opened().start("another").previous == ""
    assert opened().start("first").same is None

    _append(opened(), ROWS, "first", "")
    start = opened().start("another").previous
    assert opened().table(start) == ROWS
    _append(opened(), MORE, "second", start)
    assert opened().table(opened().start("another").previous) == MORE

    first, second = opened().entries()
    assert (first.number, first.previous, first.table) == (1, "", start)
    assert (second.number, second.previous, second.salt) == (2, start, "0-3")
    assert opened().start("second").same == second
    assert first.n_groups == {"VAL_CALIB": 9}


def test_a_request_is_recorded_once(opened: Open) -> None:
    for _ in range(2):
        _append(opened(), ROWS, "first", "")
    _append(opened(), MORE, "second", opened().start("another").previous)
    _append(opened(), ROWS, "first", "")  # its step ran again, after the cache was lost
    assert [entry.request for entry in opened().entries()] == ["first", "second"]


def test_a_run_that_another_one_has_overtaken_is_refused(opened: Open) -> None:
    _append(opened(), ROWS, "first", "")
    start = opened().start("another").previous
    _append(opened(), MORE, "second", start)
    with pytest.raises(LineageConflictError, match="'roads': another run has recorded its splits"):
        _append(opened(), ROWS, "third", start)
    assert len(opened().entries()) == 2


def test_of_two_runs_at_once_one_wins(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read the chain before either writes."""
    slow = opened()
    monkeypatch.setattr(slow, "entries", list)
    _append(opened(), ROWS, "first", "")
    with pytest.raises(LineageConflictError):
        _append(slow, MORE, "second", "")
    assert [entry.request for entry in opened().entries()] == ["first"]


def test_a_table_that_is_gone_is_named(opened: Open) -> None:
    with pytest.raises(ArtifactError, match=r"'roads': table ab\.csv is missing; restore it, or"):
        opened().table("ab")


def test_a_table_that_was_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(Variable.LINEAGES, str(tmp_path))
    lineage = Lineage.open("roads")
    assert lineage is not None
    _append(lineage, ROWS, "first", "")
    (table,) = (tmp_path / "roads").glob("*.csv")
    table.write_text(table.read_text().replace("VAL_TEST", "TRAIN"))
    with pytest.raises(ArtifactError, match="was changed"):
        lineage.table(lineage.start("another").previous)

    (tmp_path / "roads" / "000001.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"000001\.json is not an entry"):
        lineage.entries()


def test_equal_rows_have_one_table_in_any_order(opened: Open) -> None:
    _append(opened(), ROWS, "first", "")
    _append(opened(), dict(reversed(ROWS.items())), "second", opened().start("another").previous)
    assert len({entry.table for entry in opened().entries()}) == 1


def test_without_a_place_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.LINEAGES, raising=False)
    assert Lineage.open("roads") is None


@pytest.mark.parametrize("name", ["../roads", "a/b", ".roads", "a b", "x" * 101])
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    assert name in name_problem(name)


def test_other_names_are_accepted() -> None:
    assert name_problem("") == name_problem("roads-2026.1_b") == ""
