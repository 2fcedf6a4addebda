"""The audit of an assignment finds groups and near-duplicates that cross splits."""

import pytest

from components.shared.contracts.errors import LeakageViolationError
from components.shared.data.splits import audit


def test_the_audit_finds_a_planted_leak() -> None:
    groups = {"a": "g", "b": "g", "c": "h"}
    audit({"a": "TRAIN", "b": "TRAIN", "c": "VAL_TEST"}, groups, [("a", "b")])
    with pytest.raises(LeakageViolationError, match="group g in TRAIN, VAL_TEST"):
        audit({"a": "TRAIN", "b": "VAL_TEST", "c": "VAL_TEST"}, groups, [])
    with pytest.raises(LeakageViolationError, match="near-duplicates a in TRAIN and c in VAL_TEST"):
        audit({"a": "TRAIN", "b": "TRAIN", "c": "VAL_TEST"}, groups, [("a", "c")])
