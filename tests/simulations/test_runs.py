"""An accepted data set of few groups ends with a report, and a bundle or the reason for none."""

from pathlib import Path

import pytest

from tests.simulations.runs import Case, run_case

ENDS = {
    "refused by the split",
    "report",
    "report and bundle",
    "report, no bundle: infeasible",
}


# Numbers 0, 2 and 10: two classes with export, five classes, two classes and a gate's policy.
@pytest.mark.parametrize(
    "number",
    [0, 2, 10, *(pytest.param(n, marks=pytest.mark.slow) for n in range(20, 90, 7))],
)
def test_an_accepted_data_set_ends_with_a_report(number: int, tmp_path: Path) -> None:
    assert run_case(Case.of(number), tmp_path) in ENDS
