"""Policy artifacts: round trip, and refusal of damaged, ambiguous and infeasible ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.errors import ArtifactError, InfeasibleError
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.policy import Infeasible, softmax_policy
from components.shared.policies.policy_artifact import (
    read_distilled_policy,
    read_policy,
    read_policy_or_infeasible,
)

POLICY = softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), -1.605)


def _write(path: Path, document: Any) -> Path:
    with writing(path, kind=Kind.POLICY, step="test", config=Config()) as out:
        write_json(out / "policy.json", document)
    return path


def test_round_trip(tmp_path: Path) -> None:
    policy, _ = read_policy(_write(tmp_path / "policy", POLICY.to_json()))
    assert policy == POLICY


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "policy", POLICY.to_json())
    file = path / "policy.json"
    file.write_text(file.read_text().replace("-1.605", "-1.604"))
    with pytest.raises(ArtifactError, match=r"policy\.json: sha256"):
        read_policy(path)


def test_none_and_two_policies_are_refused(tmp_path: Path) -> None:
    with writing(tmp_path / "none", kind=Kind.POLICY, step="test", config=Config()) as out:
        write_json(out / "other.json", {})
    with writing(tmp_path / "two", kind=Kind.POLICY, step="test", config=Config()) as out:
        write_json(out / "policy.json", POLICY.to_json())
        write_json(out / "old_policy.json", POLICY.to_json())
    with writing(tmp_path / "broken", kind=Kind.POLICY, step="test", config=Config()) as out:
        (out / "policy.json").write_text(json.dumps(POLICY.to_json())[:-9])
    for name, message in (
        ("none", "holds none"),
        ("two", "old_policy.json"),
        ("broken", "not valid JSON"),
    ):
        with pytest.raises(ArtifactError, match=message):
            read_policy(tmp_path / name)


def test_an_infeasible_target_is_no_policy(tmp_path: Path) -> None:
    with writing(tmp_path / "policy", kind=Kind.POLICY, step="test", config=Config()) as out:
        write_json(
            out / "infeasible.json", {"kind": "scrc", "reason": "too hard", "best_level": 0.2}
        )
    with pytest.raises(InfeasibleError, match=r"policy='scrc' could not be fitted .* too hard"):
        read_policy(tmp_path / "policy")
    assert read_policy_or_infeasible(tmp_path / "policy")[0] == Infeasible("scrc", "too hard", 0.2)


def test_a_distilled_policy_is_optional(tmp_path: Path) -> None:
    assert read_distilled_policy(tmp_path) is None
    write_json(tmp_path / "student.json", POLICY.to_json())
    assert read_distilled_policy(tmp_path) == POLICY
