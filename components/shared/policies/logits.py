"""The logits artifact: predictions of one split, joined with other artifacts by sample id.

Every logits artifact has `logits.npy` (N, C) float32, `samples.csv` (one row per sample, same
order) and `logits.json` (split and class names). Further arrays exist where the model gives them:
see `OPTIONAL_FILES`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.documents import read_object
from components.shared.contracts.errors import DataError, LeakageViolationError
from components.shared.contracts.listing import first_of, shown
from components.shared.contracts.outcomes import Outcomes, class_names_problem
from components.shared.contracts.tables import integer, read_table, write_table
from components.shared.data.arrays import load_array

# Field of `Logits` -> file; the names of schema 1, under which users have them on disk.
OPTIONAL_FILES = {
    "gate": "gate.npy",
    "full_image_margin": "whole.npy",
    "distilled": "student.npy",
    "corrupted": "distorted.npy",
}
_COLUMNS = ("sample_id", "label", "group", "source", "path")


@dataclass(frozen=True)
class Views:
    """How a model of several views combines them.

    count: number of views of an image. lower_bound: the least difference between the image's margin
    and the margin of any one view; None where there is no bound.
    """

    count: int
    lower_bound: float | None


@dataclass(frozen=True)
class Logits:
    """Predictions of one split; all lists and the first axis of all arrays have length N.

    Attributes:
        logits: (N, C) float32.
        labels: (N,) int64 class indices.
        gate: (N,) float32 raw gate scores, larger for "answer"; None where the model has no gate.
        full_image_margin: (N,) float32 margin of the positive class from the full image alone, and
            `views`; both None where the model looks at one view, or names one of several classes.
        corrupted: (L, N, C) float32 logits of the images under corruptions of severity 0 to L - 1.
        distilled: (N, C) float32 logits of the distilled head, which sees full images alone; None
            where the model has none.

    Raises:
        DataError: an array has a wrong shape, type or value; the message names every one.
    """

    split: str
    class_names: tuple[str, ...]
    sample_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    paths: tuple[str, ...]
    gate: npt.NDArray[np.float32] | None = None
    full_image_margin: npt.NDArray[np.float32] | None = None
    views: Views | None = None
    corrupted: npt.NDArray[np.float32] | None = None
    distilled: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        problems = _array_problems(self) + _sample_problems(self)
        if problems:
            raise DataError(f"logits of {self.split}: " + "; ".join(problems))

    @property
    def margin(self) -> npt.NDArray[np.float64]:
        """(N,) float64, class 1 minus class 0 logit of a binary problem: the log-odds of class 1.

        Raises:
            DataError: the number of classes is not 2.
        """
        if len(self.class_names) != 2:
            raise DataError(
                f"class_names has {len(self.class_names)} entries; a margin needs exactly 2 classes"
            )
        logits64 = self.logits.astype(np.float64)
        return np.asarray(logits64[:, 1] - logits64[:, 0])

    def truth(self, outcomes: Outcomes) -> npt.NDArray[np.int64]:
        """Return (N,) int64, the number of each sample's true outcome; 1 for the positive class."""
        if outcomes.positive is None:
            return self.labels
        return np.asarray(self.labels == outcomes.positive, dtype=np.int64)


@dataclass(frozen=True)
class _Header:
    """The document of logits.json; without `views` for a model of one view."""

    split: str
    class_names: tuple[str, ...]
    views: Views | None = None


def write_logits(directory: Path, logits: Logits) -> None:
    """Write the files into an artifact's staging directory."""
    np.save(directory / "logits.npy", logits.logits, allow_pickle=False)

    for field, file in OPTIONAL_FILES.items():
        values = getattr(logits, field)
        if values is not None:
            np.save(directory / file, values, allow_pickle=False)

    labels = logits.labels.tolist()
    rows = zip(logits.sample_ids, labels, logits.groups, logits.sources, logits.paths, strict=True)
    write_table(directory / "samples.csv", _COLUMNS, rows)

    header: dict[str, object] = {"split": logits.split, "class_names": list(logits.class_names)}
    if logits.views is not None:
        header["views"] = asdict(logits.views)
    write_json(directory / "logits.json", header)


def read_logits(path: Path, split: str) -> tuple[Logits, Manifest]:
    """Verify and read a logits artifact of `split`.

    Raises:
        LeakageViolationError: the manifest or the content names another split.
        ArtifactError: the files differ from the manifest, or are malformed.
        DataError: their content contradicts itself; the message names every array.
    """
    manifest = verify_dir(path, Kind.logits_of(split), split=split)
    header = read_object(path / "logits.json", _Header)
    if header.split != split:
        raise LeakageViolationError(
            f"{path}: holds split {shown(header.split)}, this step may only see {split!r}"
        )

    table = path / "samples.csv"
    rows = list(read_table(table, _COLUMNS))
    columns = {name: tuple(row[name] for row in rows) for name in _COLUMNS}
    count, n_classes = len(rows), len(header.class_names)
    shapes: dict[str, tuple[int | None, ...]] = {
        "gate": (count,),
        "full_image_margin": (count,),
        "distilled": (count, n_classes),
        "corrupted": (None, count, n_classes),
    }
    optional: dict[str, Any] = {
        field: load_array(path / file, np.float32, shapes[field])
        for field, file in OPTIONAL_FILES.items()
        if file in manifest.files
    }

    logits = Logits(
        split=split,
        class_names=header.class_names,
        sample_ids=columns["sample_id"],
        labels=np.array([integer(x, str(table)) for x in columns["label"]], dtype=np.int64),
        logits=load_array(path / "logits.npy", np.float32, (count, n_classes)),
        groups=columns["group"],
        sources=columns["source"],
        paths=columns["path"],
        views=header.views,
        **optional,
    )

    return logits, manifest


def _array_problems(data: Logits) -> list[str]:
    """Return one line for each array of a wrong type, shape or value."""
    count, n_classes = len(data.sample_ids), len(data.class_names)
    levels = 0 if data.corrupted is None else len(data.corrupted)
    table: list[tuple[str, npt.NDArray[Any] | None, tuple[int, ...]]] = [
        ("logits", data.logits, (count, n_classes)),
        ("gate", data.gate, (count,)),
        ("full_image_margin", data.full_image_margin, (count,)),
        ("distilled", data.distilled, (count, n_classes)),
        ("corrupted", data.corrupted, (levels, count, n_classes)),
    ]

    problems = []

    for name, values, shape in table:
        problem = "" if values is None else _array_problem(name, values, shape, data.sample_ids)
        if problem:
            problems.append(problem)

    return problems


def _array_problem(
    name: str, values: npt.NDArray[Any], shape: tuple[int, ...], sample_ids: tuple[str, ...]
) -> str:
    """Return what is wrong with a float32 array of `shape`, or an empty text."""
    if values.dtype != np.float32 or values.shape != shape:
        return f"{name} is {values.dtype} {values.shape}, expected float32 {shape}"
    if np.isfinite(values).all():
        return ""
    first = np.argwhere(~np.isfinite(values))[0].tolist()
    # Axes are (samples,), (samples, classes) or (levels, samples, classes).
    index = first[:2] if len(shape) == 3 else first[:1]
    return f"{name}{index} of sample {sample_ids[index[-1]]} is not finite"


def _sample_problems(data: Logits) -> list[str]:
    """Return one line for each contradiction among ids, labels and columns."""
    problems, count = [], len(data.sample_ids)
    if (data.full_image_margin is None) != (data.views is None):
        problems.append("full_image_margin and views must be given together")
    if data.views is not None and data.views.count < 1:
        problems.append(f"views.count={data.views.count} must be >= 1")
    problem = class_names_problem(data.class_names)
    if problem:
        problems.append(problem)
    n_repeated = count - len(set(data.sample_ids))
    if n_repeated:
        problems.append(f"sample_ids repeats {n_repeated} id(s)")
    outside = sorted(set(data.labels.tolist()) - set(range(len(data.class_names))))
    if outside:
        problems.append(
            f"labels contains [{first_of(outside)}], expected 0..{len(data.class_names) - 1}"
        )
    lengths = {len(data.labels), len(data.groups), len(data.sources), len(data.paths), count}
    if len(lengths) != 1:
        problems.append(f"columns have different lengths {sorted(lengths)}")
    if count == 0:
        problems.append("no samples")

    return problems
