"""Logits artifacts for the tests of the steps that read them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.config import Config
from components.shared.policies.logits import Logits, write_logits
from components.shared.stats.metrics import Bools, Floats
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
