"""How do the predictions that the ranks left become a logits artifact?"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifacts import Manifest, writing
from components.shared.contracts.config import Config
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits
from components.shared.policies.logits import KIND_OF_SPLIT, Logits, Views, write_logits
from components.shared.vision.view_spec import ViewSpec


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
    views: ViewSpec | None = None,
) -> None:
    """Join `<split>.npy`, and `<split>-gate.npy`, `-whole`, `-student` and `-distorted` where there
    are any, with the samples in the order of their ids. `views` says how the model that made the
    latter cuts images.
    """
    ids = assignment.ids(split)
    samples = [data.samples[data.index[sample_id]] for sample_id in ids]
    logits = Logits(
        split=split,
        class_names=data.class_names,
        sample_ids=tuple(ids),
        labels=np.array([sample.label for sample in samples], dtype=np.int64),
        logits=np.load(work / f"{split}.npy", allow_pickle=False),
        groups=tuple(sample.group for sample in samples),
        sources=tuple(sample.source for sample in samples),
        paths=tuple(sample.path for sample in samples),
        gate=_optional(work / f"{split}-gate.npy"),
        distorted=_optional(work / f"{split}-distorted.npy"),
        student=_optional(work / f"{split}-student.npy"),
        whole=_optional(work / f"{split}-whole.npy"),
        views=None if views is None else Views(views.count, views.lower_bound),
    )
    kind = KIND_OF_SPLIT[split]
    with writing(path, kind=kind, step=step, config=config, inputs=inputs, split=split) as out:
        write_logits(out, logits)


def _optional(file: Path) -> npt.NDArray[np.float32] | None:
    return np.load(file, allow_pickle=False) if file.is_file() else None
