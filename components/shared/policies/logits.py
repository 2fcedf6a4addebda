"""Which sample has which logits, in which split?

The one format of every logits artifact: `logits.npy` (N, C) float32, `samples.csv` (one row per
sample, same order), `logits.json` (split and class names), `gate.npy` (N,) float32 where the model
has a gate, `whole.npy` (N,) float32 where it looks at several views, and `distorted.npy` (L, N, C)
float32 where robustness is measured. Artifacts are joined by sample id, never by order.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import Manifest, verify_dir, write_json
from components.shared.contracts.errors import DataError, LeakageViolationError

_COLUMNS = ("sample_id", "label", "group", "source", "path")


@dataclass(frozen=True)
class Views:
    """count: views of an image; lower_bound: the least that its margin is above any one view's,
    None without bound.
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
            `views`; both None where the model looks at one view.
        corrupted: (L, N, C) float32 logits of the images under corruptions of severity 0 to L - 1.
        distilled: (N, C) float32 logits of the distilled head, which sees full images alone; None
            where the model has none.
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
        problems = _problems(self)
        if problems:
            raise DataError(f"logits of {self.split}: " + "; ".join(problems))

    @property
    def margin(self) -> npt.NDArray[np.float64]:
        """(N,) float64, class 1 minus class 0 logit: the log-odds of the positive class of a binary
        problem.
        """
        if len(self.class_names) != 2:
            raise DataError(
                f"class_names has {len(self.class_names)} entries; a margin needs exactly 2 classes"
            )
        wide = self.logits.astype(np.float64)
        return np.asarray(wide[:, 1] - wide[:, 0])


def write_logits(directory: Path, logits: Logits) -> None:
    """Write the files into an artifact's staging directory."""
    np.save(directory / "logits.npy", logits.logits, allow_pickle=False)
    if logits.gate is not None:
        np.save(directory / "gate.npy", logits.gate, allow_pickle=False)
    with (directory / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        labels = logits.labels.tolist()
        writer.writerows(
            zip(logits.sample_ids, labels, logits.groups, logits.sources, logits.paths, strict=True)
        )
    header: dict[str, object] = {"split": logits.split, "class_names": list(logits.class_names)}
    if logits.full_image_margin is not None and logits.views is not None:
        np.save(directory / "whole.npy", logits.full_image_margin, allow_pickle=False)
        header["views"] = asdict(logits.views)
    if logits.distilled is not None:
        np.save(directory / "student.npy", logits.distilled, allow_pickle=False)
    if logits.corrupted is not None:
        np.save(directory / "distorted.npy", logits.corrupted, allow_pickle=False)
    write_json(directory / "logits.json", header)


def read_logits(path: Path, split: str) -> tuple[Logits, Manifest]:
    """Verify and read a logits artifact of `split`.

    Raises LeakageViolationError where the manifest or the content names another split,
    ArtifactError or DataError for anything else that is wrong.
    """
    manifest = verify_dir(path, Kind.logits_of(split), split=split)
    header = json.loads((path / "logits.json").read_text(encoding="utf-8"))
    if header["split"] != split:
        raise LeakageViolationError(
            f"{path}: holds split {header['split']!r}, this step may only see {split!r}"
        )
    with (path / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = {name: tuple(row[name] for row in rows) for name in _COLUMNS}
    logits = Logits(
        split=split,
        class_names=tuple(header["class_names"]),
        sample_ids=columns["sample_id"],
        labels=np.array([int(label) for label in columns["label"]], dtype=np.int64),
        logits=np.load(path / "logits.npy", allow_pickle=False),
        groups=columns["group"],
        sources=columns["source"],
        paths=columns["path"],
        gate=_optional(path / "gate.npy"),
        distilled=_optional(path / "student.npy"),
        corrupted=_optional(path / "distorted.npy"),
        full_image_margin=_optional(path / "whole.npy"),
        views=Views(**header["views"]) if "views" in header else None,
    )
    return logits, manifest


def _optional(file: Path) -> npt.NDArray[np.float32] | None:
    return np.load(file, allow_pickle=False) if file.is_file() else None


def _problems(data: Logits) -> list[str]:
    count, problems = len(data.sample_ids), []
    if data.logits.dtype != np.float32 or data.logits.shape != (count, len(data.class_names)):
        problems.append(
            f"logits is {data.logits.dtype} {data.logits.shape}, expected float32"
            f" {(count, len(data.class_names))}"
        )
    elif not np.isfinite(data.logits).all():
        row = int(np.flatnonzero(~np.isfinite(data.logits).all(axis=1))[0])
        problems.append(f"logits[{row}] of sample {data.sample_ids[row]} is not finite")
    for name, values in (("gate", data.gate), ("whole", data.full_image_margin)):
        if values is not None and (values.dtype != np.float32 or values.shape != (count,)):
            problems.append(f"{name} is {values.dtype} {values.shape}, expected float32 {(count,)}")
        elif values is not None and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            problems.append(f"{name}[{row}] of sample {data.sample_ids[row]} is not finite")
    if data.distilled is not None and (
        data.distilled.dtype != np.float32
        or data.distilled.shape != data.logits.shape
        or not np.isfinite(data.distilled).all()
    ):
        problems.append(f"student must be finite float32 {data.logits.shape}")
    if data.corrupted is not None:
        expected = (len(data.corrupted), count, len(data.class_names))
        if data.corrupted.dtype != np.float32 or data.corrupted.shape != expected:
            problems.append(
                f"distorted is {data.corrupted.dtype} {data.corrupted.shape}, expected float32"
                f" {expected}"
            )
        elif not np.isfinite(data.corrupted).all():
            problems.append("distorted has values that are not finite")
    if (data.full_image_margin is None) != (data.views is None):
        problems.append("whole.npy and the header's views must come together")
    if len(set(data.sample_ids)) != count:
        problems.append(f"sample_ids has {count - len(set(data.sample_ids))} doubled id(s)")
    outside = sorted(set(data.labels.tolist()) - set(range(len(data.class_names))))
    if outside:
        problems.append(f"labels contains {outside}, expected 0..{len(data.class_names) - 1}")
    lengths = {len(data.labels), len(data.groups), len(data.sources), len(data.paths), count}
    if len(lengths) != 1:
        problems.append(f"columns have different lengths {sorted(lengths)}")
    if count == 0:
        problems.append("no samples")
    return problems
