"""The number of an attempt at a guarantee, recorded in a folder and in a real store."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from components.shared.contracts.environment import Variable
from components.shared.data.attempts import expected_attempt, record_attempt


@pytest.mark.usefixtures("lineages")
def test_every_configuration_is_one_attempt_at_its_target() -> None:
    assert [record_attempt("t1", text) for text in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]
    assert record_attempt("t2", "c") == 1


@pytest.mark.usefixtures("lineages")
def test_what_is_expected_is_what_is_recorded_next() -> None:
    for text in ("a", "b", "a"):
        expected = [expected_attempt("t1", text) for _ in range(2)]
        assert expected == [record_attempt("t1", text)] * 2


@pytest.mark.usefixtures("lineages")
def test_attempts_at_once_have_different_numbers() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: record_attempt("t", text), "abcd"))

    assert sorted(found) == [1, 2, 3, 4]
    assert [record_attempt("t", text) for text in "abcd"] == found


def test_without_a_place_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.LINEAGES, raising=False)

    assert record_attempt("t", "a") == 0
    assert expected_attempt("t", "a") == 0
