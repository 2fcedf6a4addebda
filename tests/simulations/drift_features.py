"""Features of real street scenes for the simulation of drift: as they are, and corrupted.

The scenes are GTSDB's (tests/studies/gtsdb.py). Each place counts once, by one image. Clean
features are of all places; those under the deployment's corruptions of half of them, from which the
simulation draws new images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from components.shared.contracts.progress import progress
from components.shared.data.decode import decode_resized
from components.shared.data.parallel import ordered_map
from components.shared.models.backbone import image_statistics, load_backbone
from components.shared.models.classifier import Classifier, new_head, standardise
from components.shared.policies.calibration_split import one_per_group
from components.shared.vision import corruptions
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.studies.features import CLASSES, Regime, features, labelled_records

SIZE = 224
_BATCH = 32


@dataclass(frozen=True)
class Places:
    """One image of each of G places.

    Attributes:
        clean: (G, 2h) float32 features.
        labels: (G,) int64.
        days: (G,) recording day.
        corrupted: severity -> (g, 2h) float32 features of the places `rows`.
        rows: (g,) int64, the places with corrupted images.
    """

    clean: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    days: npt.NDArray[np.str_]
    corrupted: dict[int, npt.NDArray[np.float32]]
    rows: npt.NDArray[np.int64]


def places(data: Path, backbone: Path, cache: Path) -> Places:
    """Return the features, from `cache` where they are there already."""
    records = labelled_records(data)
    clean = features(records, backbone, Regime(SIZE), cache, precision="fp32").values[:, 0]
    chosen = one_per_group([record.group for record in records], seed=0)
    rows = np.sort(np.random.default_rng(0).permutation(len(chosen))[: len(chosen) // 2])

    corrupted = {}
    for severity in corruptions.SEVERITIES:
        file = cache / f"drift-severity-{severity}.npy"
        if not file.is_file():
            found = _corrupted([records[i] for i in chosen[rows]], backbone, severity)
            np.save(file, found, allow_pickle=False)
        corrupted[severity] = np.load(file, allow_pickle=False)

    return Places(
        clean[chosen],
        np.array([CLASSES.index(records[i].label) for i in chosen], dtype=np.int64),
        np.array([records[i].attributes["recording_day"] for i in chosen]),
        corrupted,
        rows,
    )


def _corrupted(records: list, backbone: Path, severity: int) -> npt.NDArray[np.float32]:
    model = load_backbone(str(backbone)).eval()
    mean, std = image_statistics(str(backbone))
    spec = ClassifierSpec(CLASSES, SIZE, mean, std, model.config.model_type)
    classifier = Classifier(model, new_head(2 * model.config.hidden_size, spec), spec).eval()
    images = np.stack(list(ordered_map(lambda r: decode_resized(r.read(), size=SIZE), records)))
    drawn = corruptions.draw(np.random.default_rng([0, severity]), len(images), severity)

    found = []
    starts = range(0, len(images), _BATCH)
    for start in progress(starts, f"features at severity {severity}", total=len(starts)):
        rows = np.arange(start, min(start + _BATCH, len(images)))
        pixels = corruptions.corrupt(torch.from_numpy(images[rows]), drawn.take(rows), SIZE)
        with torch.inference_mode():
            found.append(classifier.features(standardise(pixels, spec)).numpy())
    return np.concatenate(found)
