"""Record of attempts at a guarantee: how often one has been asked for on the same data.

A guarantee of level delta holds for one attempt. Whoever trains with other seeds until a threshold
is certified gets a false one sooner or later, so that every policy says which attempt it is.

Each target (data and guarantee) has a chain `attempts/<target>/000001`, `000002`, ..., whose
objects name the configurations that asked for it. The same configuration is the same attempt.
"""

import re

from components.shared.contracts.errors import TransientError
from components.shared.data.records import Records, open_records

_NAME = re.compile(r"[0-9]{6}")
_N_TRIES = 20  # so many runs at once are more than any cluster starts


def expected_attempt(target: str, configuration: str) -> int:
    """Return which attempt `record_attempt` would say it is, and record nothing."""
    records = open_records(f"attempts/{target}")
    if records is None:
        return 0

    number, _ = _position(records, configuration)
    return number


def record_attempt(target: str, configuration: str) -> int:
    """Record that a configuration asks for a guarantee, and return which attempt it is.

    Args:
        target: hex digest of the data and of the guarantee.
        configuration: hex digest of all options that the guarantee depends on.

    Returns:
        1 for the first configuration; 0 where STREETVISION_LINEAGES is not set.

    Raises:
        TransientError: other runs record attempts at the same target all the time.
    """
    records = open_records(f"attempts/{target}")
    if records is None:
        return 0

    for _ in range(_N_TRIES):
        number, is_recorded = _position(records, configuration)
        if is_recorded or records.create(f"{number:06d}", configuration.encode()):
            return number

    raise TransientError(f"attempt at {target[:12]}: other runs recorded {_N_TRIES} before it")


def _position(records: Records, configuration: str) -> tuple[int, bool]:
    """Return the number of a configuration, or the next one, and whether it is recorded."""
    names = [name for name in records.names() if _NAME.fullmatch(name)]
    for name in names:
        if records.read(name) == configuration.encode():
            return int(name), True
    return len(names) + 1, False
