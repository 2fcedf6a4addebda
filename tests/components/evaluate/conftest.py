"""Input artifacts of an evaluation with all three policies, made without a model."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.config import Config
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.logits import Logits, write_logits
from components.shared.policies.policy import (
    GatePolicy,
    Policy,
    ScrcPolicy,
    argmax_policy,
    softmax_policy,
)
from tests.bundles import write_dataset, write_test_images
from tests.logits_artifacts import binary_logits

N = 200
GUARANTEE: dict[str, Any] = {
    "outcomes": Outcomes.of(("None", "Roadwork")),
    "threshold": 0.5,
    "threshold_margin": 0.0,
    "risk": "error",
    "alpha": 0.1,
    "delta": 0.1,
    "coverage_lower_bound": 0.3,
}
SOFTMAX = softmax_policy(Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 0.0)
SCRC = ScrcPolicy(kind="scrc", **GUARANTEE, answer_from=(1.0, 1.0))
GATE = GatePolicy(kind="gate", **GUARANTEE, gate_slope=1.0, gate_intercept=0.0, answer_from=0.0)


def make_logits(gate: bool) -> Logits:
    """Margins right in four of five cases; the gate knows in which."""
    rng = np.random.default_rng(0)
    truth = np.arange(N) % 2 == 1
    wrong = rng.random(N) < 0.2
    margin = np.where(truth ^ wrong, 1, -1) * rng.uniform(0.2, 3, N)
    logits = binary_logits(truth, margin, "VAL_TEST", [f"g{i // 2}" for i in range(N)])
    scores = np.where(wrong, -1, 1) + rng.normal(0, 0.3, N)
    ids = tuple(f"{i:016x}" for i in range(N))
    return dataclasses.replace(
        logits, sample_ids=ids, gate=scores.astype(np.float32) if gate else None
    )


def store_logits(path: Path, logits: Logits) -> Path:
    with writing(
        path, kind=Kind.logits_of("VAL_TEST"), step="test", config=Config(), split="VAL_TEST"
    ) as out:
        write_logits(out, logits)
    return path


def store_policy(path: Path, policy: Policy) -> Path:
    with writing(path, kind="Policy", step="test", config=Config()) as out:
        write_json(out / "policy.json", policy.to_json())
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """All input artifacts, with all three policies."""
    write_dataset(tmp_path / "dataset", ("None", "Roadwork"), N)
    write_test_images(tmp_path / "val_test_images", tmp_path / "dataset")
    return {
        "val_test_images": tmp_path / "val_test_images",
        "val_test_logits": store_logits(tmp_path / "logits", make_logits(gate=False)),
        "gate_test_logits": store_logits(tmp_path / "gate_logits", make_logits(gate=True)),
        "softmax_policy": store_policy(tmp_path / "softmax", SOFTMAX),
        "gate_policy": store_policy(tmp_path / "gate", GATE),
        "scrc_policy": store_policy(tmp_path / "scrc", SCRC),
    }


def class_inputs(root: Path, class_names: tuple[str, ...], n: int = 240) -> dict[str, Path]:
    """Input artifacts of several classes with own names: a softmax and an SCRC policy.

    Sample i is of class i modulo K, as in `write_dataset`; two samples a group.
    """
    rng, n_classes = np.random.default_rng(n), len(class_names)
    labels = np.arange(n) % n_classes
    ids = tuple(f"{i:016x}" for i in range(n))
    logits = Logits(
        split="VAL_TEST",
        class_names=class_names,
        sample_ids=ids,
        labels=labels,
        logits=(rng.normal(0, 1, (n, n_classes)) + 2.5 * np.eye(n_classes)[labels]).astype("f4"),
        groups=tuple(f"g{i // 2}" for i in range(n)),
        sources=("s",) * n,
        paths=tuple(f"{i}.jpg" for i in range(n)),
    )
    outcomes = Outcomes.of(class_names)
    guarantee = GUARANTEE | {"outcomes": outcomes}
    scrc = ScrcPolicy(kind="scrc", **guarantee, answer_from=(0.5,) * n_classes, single_from=0.8)
    write_dataset(root / "dataset", class_names, n)
    write_test_images(root / "val_test_images", root / "dataset")
    return {
        "val_test_images": root / "val_test_images",
        "val_test_logits": store_logits(root / "logits", logits),
        "softmax_policy": store_policy(root / "softmax", argmax_policy(outcomes)),
        "scrc_policy": store_policy(root / "scrc", scrc),
    }
