"""The audited images: those of TRAIN and VAL_SELECT, with features, labels and groups."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import first_of
from components.shared.data.dataset import Dataset, Sample
from components.shared.data.features import Features, open_features

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SPLITS = ("TRAIN", "VAL_SELECT")


@dataclass(frozen=True)
class Audited:
    """N images in the order of their ids.

    Attributes:
        data: The data set.
        samples: Of the N images.
        splits: (N,) TRAIN or VAL_SELECT.
        features: (N, F) float32, unaugmented: those of the full image; of a model with tiles, also
            the mean over the tiles.
        inputs: Manifests of dataset and features.
    """

    data: Dataset
    samples: list[Sample] = field(repr=False)
    splits: list[str] = field(repr=False)
    features: npt.NDArray[np.float32] = field(repr=False)
    inputs: dict[str, Manifest] = field(repr=False)

    @classmethod
    def read(cls, dataset: Path, train_features: Path, val_select_features: Path) -> Self:
        """Verify and read the artifacts.

        Raises:
            LeakageViolationError: features of another split.
            ArtifactError: an artifact is damaged, the features are not those of the data set by one
                backbone, or empty.
        """
        data = Dataset.open(dataset)
        paths = dict(zip(SPLITS, (train_features, val_select_features), strict=True))
        opened = {split: open_features(path, split) for split, path in paths.items()}
        _refuse_foreign(data, paths, opened)

        rows: list[tuple[str, str]] = []
        values = []
        for split, (features, _) in opened.items():
            rows += [(sample_id, split) for sample_id in features.sample_ids]
            values.append(_vectors(features))

        order = sorted(range(len(rows)), key=lambda row: rows[row])
        unknown = [rows[row][0] for row in order if rows[row][0] not in data.index]
        if unknown:
            raise ArtifactError(f"features of {first_of(unknown)}, which the dataset lacks")

        manifests = {split: manifest for split, (_, manifest) in opened.items()}
        return cls(
            data=data,
            samples=[data.samples[data.index[rows[row][0]]] for row in order],
            splits=[rows[row][1] for row in order],
            features=np.concatenate(values)[order],
            inputs={
                "dataset": data.manifest,
                "train_features": manifests["TRAIN"],
                "val_select_features": manifests["VAL_SELECT"],
            },
        )

    @property
    def labels(self) -> Integers:
        """(N,) class indices as given."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @property
    def groups(self) -> list[str]:
        """(N,) group names."""
        return [sample.group for sample in self.samples]


def _refuse_foreign(
    data: Dataset,
    paths: dict[str, Path],
    opened: dict[str, tuple[Features, Manifest]],
) -> None:
    """Raise ArtifactError where the features are empty, or not of the data set by one backbone."""
    for split, (features, manifest) in opened.items():
        if features.recipe is None:
            raise ArtifactError(
                f"{paths[split]}: has no features: it was written for a run that trains the"
                " backbone; run extract_features with needed=true"
            )
        if manifest.inputs.get("dataset") != data.manifest.content_digest:
            raise ArtifactError(
                f"{paths[split]}: made from another dataset; run extract_features again"
            )

    backbones = {manifest.inputs.get("backbone") for _, manifest in opened.values()}
    if len(backbones) > 1:
        raise ArtifactError("the features of TRAIN and VAL_SELECT are of two backbones")


def _vectors(features: Features) -> npt.NDArray[np.float32]:
    """Return (n, F) float32: the full image's features, and the mean over tiles where there are."""
    blocks = []
    for rows in features.blocks():
        found = features.take(rows)
        if found.ndim == 3:
            tiles = [found[:, 1:].mean(axis=1)] if found.shape[1] > 1 else []
            found = np.concatenate([found[:, 0], *tiles], axis=1)
        blocks.append(found)
    return np.concatenate(blocks)
