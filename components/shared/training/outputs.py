"""How do the predictions that the ranks left become a logits artifact?"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from components.shared.artifacts import Manifest, writing
from components.shared.config import Config
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits
from components.shared.evaluation.logits import KIND_OF_SPLIT, Logits, write_logits


def write_split_logits(
    path: Path,
    split: str,
    work: Path,
    data: Dataset,
    assignment: Splits,
    *,
    step: str,
    config: Config,
    inputs: Mapping[str, Manifest],
) -> None:
    """Join `<split>.npy`, and `<split>-gate.npy` where there is one, with the samples in the order of their ids."""
    ids = assignment.ids(split)
    samples = [data.samples[data.index[sample_id]] for sample_id in ids]
    gate = work / f"{split}-gate.npy"
    logits = Logits(
        split=split,
        class_names=data.class_names,
        sample_ids=tuple(ids),
        labels=np.array([sample.label for sample in samples], dtype=np.int64),
        logits=np.load(work / f"{split}.npy", allow_pickle=False),
        groups=tuple(sample.group for sample in samples),
        sources=tuple(sample.source for sample in samples),
        paths=tuple(sample.path for sample in samples),
        gate=np.load(gate, allow_pickle=False) if gate.is_file() else None,
    )
    kind = KIND_OF_SPLIT[split]
    with writing(path, kind=kind, step=step, config=config, inputs=inputs, split=split) as out:
        write_logits(out, logits)
