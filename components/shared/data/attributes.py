"""What is recorded of samples besides label and group, as columns: by these, metrics are sliced.

`samples.csv` of a data set and the table of ValTestImages hold the same columns: the source, what
ingest measures of the pixels, and the user's own, with a prefix.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from components.shared.contracts.tables import number
from components.shared.data.dataset import ATTRIBUTE, MEASURED, Sample
from components.shared.stats.metrics import Floats

_OWN = ("source", *MEASURED)


def recorded_columns(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """Return the columns of samples as texts, by their names in `samples.csv`."""
    columns = {"source": [sample.source for sample in samples]}
    for name in MEASURED:
        values = (getattr(sample, name) for sample in samples)
        columns[name] = ["" if value is None else str(value) for value in values]

    names = sorted({name for sample in samples for name in sample.attributes})
    for name in names:
        columns[ATTRIBUTE + name] = [sample.attributes.get(name, "") for sample in samples]

    return columns


def is_recorded(name: str) -> bool:
    """Whether a column of a table is one of these."""
    return name in _OWN or name.startswith(ATTRIBUTE)


def sliceable_columns(
    recorded: Mapping[str, Sequence[str]], where: str
) -> dict[str, Sequence[str] | Floats]:
    """Return recorded columns under the names that a user gives them.

    Args:
        recorded: as `recorded_columns` returns them; artifacts of former versions lack some.
        where: the table, for messages.

    Returns:
        Name -> N texts, or (N,) float64 of what is measured, nan where it was not. The user's
        columns have their own names, without the prefix unless one of the project's has that name.

    Raises:
        ArtifactError: what is measured is no number.
    """
    found: dict[str, Sequence[str] | Floats] = {}
    for name, values in recorded.items():
        if name in MEASURED:
            numbers = np.array([number(text, where) for text in values], dtype=np.float64)
            if np.isfinite(numbers).any():
                found[name] = numbers
        else:
            own = name.removeprefix(ATTRIBUTE)
            found[name if own in _OWN else own] = values
    return found


def resolved_names(names: Iterable[str], columns: Mapping[str, object]) -> list[str]:
    """Return names of columns; one with the prefix is also that of the column without it."""
    return [name if name in columns else name.removeprefix(ATTRIBUTE) for name in names]
