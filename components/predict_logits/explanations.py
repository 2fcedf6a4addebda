"""Why the classifier would err: the margins of VAL_TEST's least certain images, in parts."""

import numpy as np
import numpy.typing as npt
import torch

from components.shared.contracts.options import PREDICTOR_PRECISION
from components.shared.data.drift_reference import DriftReference
from components.shared.data.margin_parts import MOST_EXPLAINED, MarginParts
from components.shared.data.val_test_images import least_certain, wrong_classes
from components.shared.models.classifier import Classifier, normalise
from components.shared.models.explanation import split_margins
from components.shared.training.loop.distributed import World
from components.shared.training.loop.inference import Positions, SplitData, infer_images
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import view_box

Values = npt.NDArray[np.float32]
_N_NUMBERS = 3  # columns before those of the patches


def explained_rows(logits: Values, labels: npt.NDArray[np.int64]) -> Positions:
    """Return the rows of the images to explain, ascending; all of them have thumbnails."""
    return np.sort(least_certain(logits, labels)[:MOST_EXPLAINED])


def split_errors(
    classifier: Classifier,
    part: SplitData,
    logits: Values,
    reference: DriftReference,
    world: World,
) -> Values:
    """Return the parts of the margin of each image's most probable wrong class against the true.

    Args:
        classifier: The classifier.
        part: The split, of N images.
        logits: (N, C) of these images.
        reference: Its features' mean is the reference of the parts.
        world: The ranks.

    Returns:
        (n, 3 + P) float32 of the images `explained_rows`: number of the view, part of the CLS
        token, constant, and the parts of the view's P patches, row by row.
    """
    rows = explained_rows(logits, part.labels)
    sample = SplitData(part.data, part.positions[rows], part.labels[rows])
    wrong = torch.from_numpy(wrong_classes(logits, part.labels)[rows])
    truth = torch.from_numpy(sample.labels)
    mean = torch.from_numpy(reference.features.astype(np.float64).mean(axis=0)).to(world.device)

    def columns(batch: Positions, images: torch.Tensor) -> torch.Tensor:
        tokens = classifier.tokens(normalise(images, classifier.spec))
        found = split_margins(
            classifier,
            tokens,
            wrong[batch].to(world.device),
            against=truth[batch].to(world.device),
            reference=mean,
        )
        numbers = torch.stack([found.view.double(), found.cls, found.constant], dim=1)
        return torch.cat([numbers, found.patches.flatten(1)], dim=1)

    found = infer_images(
        classifier, sample, world, columns, "explanations of VAL_TEST", PREDICTOR_PRECISION
    )
    return np.asarray(found.numpy())


def margin_parts(
    columns: Values, spec: ClassifierSpec, logits: Values, labels: npt.NDArray[np.int64]
) -> list[MarginParts]:
    """Return what `split_errors` found, each in its place in the image.

    Args:
        columns: (n, 3 + P) as `split_errors` returns them.
        spec: The specification of the classifier.
        logits: (n, C) of these images.
        labels: (n,) their classes.
    """
    side = round((columns.shape[1] - _N_NUMBERS) ** 0.5)
    found = []

    for row, wrong in enumerate(wrong_classes(logits, labels).tolist()):
        view, cls, constant = columns[row, :_N_NUMBERS].tolist()
        patches = columns[row, _N_NUMBERS:].astype(np.float64).reshape(side, side)
        left, top, length, mirrored = view_box(spec.image_size, spec.views, int(view))
        size = spec.image_size
        found.append(
            MarginParts(
                speaks_for=wrong,
                margin=float(logits[row, wrong]) - float(logits[row, labels[row]]),
                cls=cls,
                constant=constant,
                patches=patches[:, ::-1] if mirrored else patches,
                box=(left / size, top / size, length / size),
            )
        )

    return found
