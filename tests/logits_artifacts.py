"""Logits artifacts for the tests of the steps that read them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.policies.logits import Logits, write_logits
from components.shared.stats.metrics import Bools, Floats, softmax
from components.train_baseline.config import TrainBaselineConfig
from tests.components.shared.stats.cal40 import MARGIN, TRUTH


def binary_logits(
    truth: Bools, margin: Floats, split: str, groups: Sequence[str] | None = None
) -> Logits:
    """Logits (0, margin) of None and Roadwork; two samples a group unless given."""
    count = len(truth)
    return Logits(
        split=split,
        class_names=("None", "Roadwork"),
        sample_ids=tuple(f"s{i:06d}" for i in range(count)),
        labels=truth.astype(np.int64),
        logits=np.column_stack([np.zeros(count), margin]).astype(np.float32),
        groups=tuple(groups) if groups is not None else tuple(f"g{i // 2}" for i in range(count)),
        sources=("s",) * count,
        paths=tuple(f"{i}.jpg" for i in range(count)),
    )


def logits_artifact(
    path: Path,
    truth: Bools = TRUTH,
    margin: Floats = MARGIN,
    *,
    split: str = "VAL_CALIB",
    claimed: str | None = None,
    groups: Sequence[str] | None = None,
) -> Path:
    """A logits artifact of `split`; its manifest claims to be of `claimed`."""
    claimed = claimed or split
    with writing(
        path, kind=Kind.logits_of(claimed), step="test", config=Config(), split=claimed
    ) as out:
        write_logits(out, binary_logits(truth, margin, split, groups))
    return path


def multiclass_logits(
    count: int,
    split: str,
    *,
    n_classes: int = 4,
    seed: int = 0,
    scale: float = 2.0,
    groups: Sequence[str] | None = None,
) -> Logits:
    """Logits of classes a, b, ..., and labels drawn from their softmax at logits / scale.

    They are `scale` times as extreme as the truth; a negative scale is mostly wrong.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, n_classes)) * 6
    drawn = softmax(logits / scale).cumsum(axis=1) > rng.random((count, 1))
    return Logits(
        split=split,
        class_names=tuple("abcdefghij"[:n_classes]),
        sample_ids=tuple(f"s{i:06d}" for i in range(count)),
        labels=drawn.argmax(axis=1).astype(np.int64),
        logits=logits.astype(np.float32),
        groups=tuple(groups) if groups is not None else tuple(f"g{i}" for i in range(count)),
        sources=("s",) * count,
        paths=tuple(f"{i}.jpg" for i in range(count)),
    )


def multiclass_artifact(path: Path, logits: Logits) -> Path:
    """The artifact of such logits."""
    kind = Kind.logits_of(logits.split)
    with writing(path, kind=kind, step="test", config=Config(), split=logits.split) as out:
        write_logits(out, logits)
    return path


# Content digests of what a candidate was made from.
TRAINED_ON = {"dataset": "d" * 64, "splits": "s" * 64, "backbone": "b" * 64}


def candidate(
    root: Path,
    mode: str,
    margin: Floats = MARGIN,
    truth: Bools = TRUTH,
    inputs: Mapping[str, str] = TRAINED_ON,
) -> None:
    """<mode>/checkpoint and <mode>/logits of VAL_SELECT, as train_baseline leaves them.

    The checkpoint is no model.
    """
    common: dict[str, Any] = {
        "step": "train_baseline",
        "config": TrainBaselineConfig(mode=mode),
        "inputs": inputs,
    }
    with writing(
        root / f"{mode}/checkpoint", kind="Checkpoint", summary={"best_epoch": 3}, **common
    ) as out:
        (out / "weights").write_text(mode)
    with writing(
        root / f"{mode}/logits", kind="ValSelectLogits", split="VAL_SELECT", **common
    ) as out:
        write_logits(out, binary_logits(truth, margin, "VAL_SELECT"))
