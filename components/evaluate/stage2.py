"""Logits of stage 2 on VAL_TEST: a table that a user brings, of a model of any kind.

The CSV has the column `sample_id` and one column for each class, with its name: the logit of the
class, or the logarithm of its probability. Rows of images that no policy defers may be missing.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from components.shared.contracts.errors import ArtifactError, DataError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.tables import number, parse_table
from components.shared.policies.policy import Policy, argmax_policy
from components.shared.stats.metrics import Floats, Integers
from components.shared.storage.places import read_place

_ID = "sample_id"
UNKNOWN = -1  # the decision about an image without a row


@dataclass(frozen=True)
class Stage2Logits:
    """What stage 2 says of some images.

    Attributes:
        file: name of the table, without folders.
        sha256: of its bytes.
        rows: sample id -> position in `logits`.
        logits: (M, C) float64.
    """

    file: str
    sha256: str
    rows: dict[str, int]
    logits: Floats

    def decisions(self, policy: Policy, sample_ids: Sequence[str]) -> Integers:
        """Return (N,) int64, the more probable outcome of each image; `UNKNOWN` without a row."""
        found = argmax_policy(policy.outcomes).decision(self.logits)
        rows = [self.rows.get(sample_id) for sample_id in sample_ids]
        return np.array([UNKNOWN if row is None else found[row] for row in rows], dtype=np.int64)


def read_stage2(place: str, class_names: Sequence[str], sample_ids: Sequence[str]) -> Stage2Logits:
    """Read the table.

    Args:
        place: local path or s3:// address.
        class_names: of the model, in the order of its logits.
        sample_ids: of VAL_TEST.

    Raises:
        DataError: there is no such file; it is no such table; a class has no column; a value is no
            number; an id stands twice or is none of VAL_TEST.
    """
    where = f"stage2_logits={shown(place)}"
    data = read_place("stage2_logits", place)
    try:
        table = list(parse_table(io.BytesIO(data), where, [_ID, *class_names]))
        ids = [row[_ID] for row in table]
        values = [[number(row[name], where) for name in class_names] for row in table]
    except ArtifactError as error:
        raise DataError(str(error)) from error

    problems = _problems(ids, values, set(sample_ids))
    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}")

    return Stage2Logits(
        file=PurePosixPath(place).name,
        sha256=hashlib.sha256(data).hexdigest(),
        rows={sample_id: row for row, sample_id in enumerate(ids)},
        logits=np.array(values, dtype=np.float64).reshape(len(ids), len(class_names)),
    )


def _problems(
    ids: Sequence[str], values: Sequence[Sequence[float | None]], known: set[str]
) -> list[str]:
    """Return what is wrong with the rows, a text each."""
    problems = []
    if not ids:
        problems.append("it has no rows")

    empty = [sample_id for sample_id, row in zip(ids, values, strict=True) if None in row]
    if empty:
        problems.append(f"a value is empty of {first_of(empty, most=3)}")

    seen: set[str] = set()
    repeated = [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
    if repeated:
        problems.append(f"{len(repeated)} ids stand twice: {first_of(repeated, most=3)}")

    unknown = [sample_id for sample_id in ids if sample_id not in known]
    if unknown:
        problems.append(
            f"{len(unknown)} of {len(ids)} ids are none of VAL_TEST: {first_of(unknown, most=3)}"
        )
    return problems
