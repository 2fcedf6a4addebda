"""The parts of margins of images that may become hard examples, beside their thumbnails.

Evaluation runs without the model, so that `predict_logits` splits the margins: of each image, that
of its most probable wrong class against its true class, which are the two that an error confuses.
`explanations.npy` holds the patches' parts (n, H, W) float16, `explanations.csv` the other parts.
Artifacts of former versions have neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import first_of
from components.shared.contracts.tables import integer, number, read_table, write_table
from components.shared.data.arrays import load_array
from components.shared.data.drift_reference import as_half

# Half a megabyte at 224 pixels in patches of 14, and a tenth of VAL_TEST's pass through the model
# for 20,000 images: errors come first.
MOST_EXPLAINED = 2_000
_TABLE, _PATCHES = "explanations.csv", "explanations.npy"
_NUMBERS = ("margin", "cls", "constant", "left", "top", "side")
_COLUMNS = ("sample_id", "speaks_for", *_NUMBERS)


@dataclass(frozen=True)
class MarginParts:
    """The margin of an image's most probable wrong class against its true class, in log-odds.

    Attributes:
        speaks_for: Index of the class that positive parts speak for.
        margin: The image's own, as its logits have it; of several views not the sum of the parts,
            which are those of the view that weighs most.
        cls: The part of the CLS token.
        constant: What no token of the image decides.
        patches: (H, W) float64 parts of the patches, where they lie in the box.
        box: (left, top, side) of the view, as fractions of the image's side.
    """

    speaks_for: int
    margin: float
    cls: float
    constant: float
    patches: npt.NDArray[np.float64]
    box: tuple[float, float, float]

    @property
    def cls_share(self) -> float:
        """The CLS token's share of the evidence, 0 to 1: |cls| / (|cls| + |sum of patches|)."""
        return cls_share(self.cls, float(self.patches.sum()))

    @property
    def strength(self) -> float:
        """The patches' weight in the evidence, 0 to 1, with which their colours are drawn."""
        return strength(self.cls, self.patches)

    def negated(self) -> Self:
        """Return the same parts as evidence for the other one of the two classes."""
        return replace(
            self,
            margin=-self.margin,
            cls=-self.cls,
            constant=-self.constant,
            patches=-self.patches,
        )


def cls_share(cls: float, patches: float) -> float:
    """Return the CLS token's share of two parts of a margin, 0 to 1; 0 where both are 0."""
    both = abs(cls) + abs(patches)
    return abs(cls) / both if both else 0.0


def strength(cls: float, patches: npt.NDArray[np.float64]) -> float:
    """Return the patches' weight beside the CLS token's, 0 to 1: sum |patch| / (|cls| + that).

    Unlike in `cls_share`, patches for and against do not cancel.
    """
    gross = float(np.abs(patches).sum())
    return gross / (gross + abs(cls)) if gross else 0.0


def write_margin_parts(directory: Path, parts: Mapping[str, MarginParts]) -> None:
    """Write the parts, by sample id, into an artifact's staging directory; at least one."""
    rows = (
        (sample_id, part.speaks_for, part.margin, part.cls, part.constant, *part.box)
        for sample_id, part in parts.items()
    )
    write_table(directory / _TABLE, _COLUMNS, rows)
    patches = as_half(np.stack([part.patches for part in parts.values()]))
    np.save(directory / _PATCHES, patches, allow_pickle=False)


def read_margin_parts(
    directory: Path, labels: Mapping[str, int], n_classes: int
) -> dict[str, MarginParts]:
    """Read the parts by sample id; an empty dictionary where the artifact has none.

    Args:
        directory: The artifact.
        labels: Class index by sample id, of all images.
        n_classes: Number of classes.

    Raises:
        ArtifactError: A file is missing or damaged, or contradicts the labels.
    """
    table = directory / _TABLE
    if not table.exists():
        return {}

    where = str(table)
    rows = list(read_table(table, _COLUMNS))
    patches = load_array(directory / _PATCHES, np.float16, (len(rows), None, None))
    found = {
        row["sample_id"]: _parsed(row, values.astype(np.float64), where)
        for row, values in zip(rows, patches, strict=True)
    }

    unknown = sorted(found.keys() - labels.keys())
    if unknown or len(found) != len(rows):
        raise ArtifactError(
            f"{where}: has images twice, or others than samples.csv: {first_of(unknown, most=3)}"
        )
    possible = range(n_classes)
    wrong = [
        sample_id
        for sample_id, part in found.items()
        if part.speaks_for not in possible or part.speaks_for == labels[sample_id]
    ]
    if wrong:
        raise ArtifactError(f"{where}: speaks_for is no wrong class of {first_of(wrong, most=3)}")
    if not np.isfinite(patches).all():
        raise ArtifactError(f"{directory / _PATCHES}: is not finite")
    return found


def _parsed(row: Mapping[str, str], patches: npt.NDArray[np.float64], where: str) -> MarginParts:
    values = {name: number(row[name], where) for name in _NUMBERS}
    margin, cls, constant, left, top, side = (values[name] or 0.0 for name in _NUMBERS)
    inside = 0 <= left <= 1 and 0 <= top <= 1 and 0 < side <= 1
    if None in values.values() or not inside or not patches.size:
        raise ArtifactError(f"{where}: {row['sample_id']} has parts without a number or a place")
    return MarginParts(
        speaks_for=integer(row["speaks_for"], where),
        margin=margin,
        cls=cls,
        constant=constant,
        patches=patches,
        box=(left, top, side),
    )
