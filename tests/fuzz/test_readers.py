"""No input ends a reader with an untyped exception, takes seconds, or fills the memory.

`make test` reads 100 inputs of each target, `make test-all` 1,000 others, and the whole, 20,000, is
`python -m tests.fuzz.campaign`.
"""

import pytest

from tests.fuzz.campaign import MOST_SECONDS, run_cases
from tests.fuzz.targets import TARGETS, opened

MOST_MEGABYTES = 400  # by which a process grows, its libraries among them


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("n_cases", "seed"), [(100, 1), pytest.param(1000, 2, marks=pytest.mark.slow)]
)
def test_every_input_is_read_or_refused_by_a_typed_error(
    name: str, n_cases: int, seed: int
) -> None:
    with opened(name) as target:
        tally = run_cases(target, n_cases, seed)

    assert not tally.untyped, tally.examples
    assert tally.cases >= n_cases // 2  # strategies may run out of different inputs
    assert tally.typed > 0
    assert tally.longest_seconds < MOST_SECONDS
    assert tally.grown_megabytes < MOST_MEGABYTES
