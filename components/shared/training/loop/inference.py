"""Features, logits and corrupted logits of a split, each sample computed once over all ranks."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from components.shared.contracts.progress import progress
from components.shared.contracts.random_streams import CachedImageStream
from components.shared.data.dataset import Dataset
from components.shared.data.splits import Splits
from components.shared.models.classifier import BagHead, Classifier, normalise, standardise
from components.shared.training.loop.distributed import World
from components.shared.training.loop.halving import PartSize, in_parts
from components.shared.training.loop.read_ahead import Pixels, ReadAhead
from components.shared.training.loop.sampler import step_rng
from components.shared.vision import augmentation as augment
from components.shared.vision import corruptions
from components.shared.vision.arithmetic import single_precision
from components.shared.vision.classifier_spec import ClassifierSpec

Positions = npt.NDArray[np.int64]
_BATCH = 32
# How many images of each classifier fitted at a time, for what is computed with it next.
_part_sizes: WeakKeyDictionary[Classifier, PartSize] = WeakKeyDictionary()


@dataclass(frozen=True)
class SplitData:
    """Images and labels of one split, in the order of its sorted sample ids. labels: (N,) int64."""

    data: Dataset
    positions: Positions
    labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, data: Dataset, assignment: Splits, split: str) -> Self:
        """The samples `assignment` puts into `split`."""
        positions = np.array(
            [data.index[sample_id] for sample_id in assignment.ids(split)], dtype=np.int64
        )
        return cls(
            data, positions, np.array([data.samples[i].label for i in positions], dtype=np.int64)
        )

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def sample_ids(self) -> list[str]:
        """Ids of the samples, in order."""
        return [self.data.samples[position].sample_id for position in self.positions]

    def resized(self, size: int) -> "SplitData":
        """The same samples with images of `size` pixels (`Dataset.resized`)."""
        return dataclasses.replace(self, data=self.data.resized(size))

    def images(self, rows: Positions, device: torch.device) -> torch.Tensor:
        """(n, S, S, 3) uint8."""
        return torch.from_numpy(self.data.images(self.positions[rows])).to(device)

    def reader(self, device: torch.device) -> ReadAhead:
        """The same images by rows of the split, read ahead by a thread."""

        def read(rows: Positions, out: Pixels) -> None:
            self.data.images(self.positions[rows], out)

        return ReadAhead(read, self.data.image_size, device)

    def pixels(self, rows: Positions, spec: ClassifierSpec, device: torch.device) -> torch.Tensor:
        """(n, 3, s, s) float32 at the size of the specification, normalised, undistorted."""
        return normalise(self.resized(spec.image_size).images(rows, device), spec)


def augmented_features(
    classifier: Classifier,
    part: SplitData,
    rows: Positions,
    world: World,
    *,
    parameters: Sequence[augment.Augmentation | None],
    precision: str,
) -> torch.Tensor:
    """Return features of the images `rows` under several augmentations: the head's input.

    Every image is read once, twice where it is stored larger than the classifier sees it.

    Args:
        classifier: The classifier with the fixed backbone.
        part: The split.
        rows: (n,) rows of the split.
        world: The ranks; the work is this rank's alone.
        parameters: A augmentations, each of all images of the split; None: no augmentation.
        precision: Precision of the forward pass.

    Returns:
        (n, A, 2h), or (n, A, V, 2h) of V views; float32 on the CPU.
    """
    spec = classifier.spec

    def extract(batch: Positions) -> torch.Tensor:
        whole = undistorted.images(batch)
        images = whole if stored is undistorted else stored.images(batch)
        sets = [
            normalise(whole, spec)
            if drawn is None
            else standardise(augment.apply(images, drawn.take(batch), spec.image_size), spec)
            for drawn in parameters
        ]
        return torch.stack([classifier.features(pixels).float() for pixels in sets], dim=1)

    def expect(batch: Positions) -> None:
        undistorted.expect(batch)
        if stored is not undistorted:
            stored.expect(batch)

    size = part_size(classifier, world)
    seen = part.resized(spec.image_size)
    with ExitStack() as readers:
        undistorted = stored = readers.enter_context(seen.reader(world.device))
        # Crops are taken from the stored pixels, of which there may be more than the model sees.
        if seen.data is not part.data and any(drawn is not None for drawn in parameters):
            stored = readers.enter_context(part.reader(world.device))
        return in_batches(extract, rows, world, "", precision, batch_size=size, expect=expect).cpu()


def drawn_augmentations(
    count: int, *, n_augmentations: int, augmentation: str, seed: int
) -> list[augment.Augmentation | None]:
    """Return the augmentations of a split's `count` images; None, the first, stands for none."""
    drawn: list[augment.Augmentation | None] = [None]
    for number in range(1, n_augmentations):
        rng = step_rng(seed, number, CachedImageStream.CACHED_AUGMENTATION)
        drawn.append(augment.draw(rng, count, augmentation))
    return drawn


def predict(
    classifier: Classifier,
    part: SplitData,
    world: World,
    *,
    precision: str,
    description: str = "",
) -> npt.NDArray[np.float32]:
    """Return logits (N, K) float32 of undistorted images in the order of the split's ids.

    Each sample is computed once.
    """

    return predict_views(
        classifier, part, world, precision=precision, description=description
    ).logits


@dataclass(frozen=True)
class ViewPredictions:
    """Logits of all views and, of a multi-view classifier, of the full image alone.

    Attributes:
        logits: (N, K) float32, of all views.
        full_image_margin: (N,) float32 margin of the full image alone; None for one view.
        distilled: (N, 2) float32 logits of the distilled head; None where the classifier has none.
    """

    logits: npt.NDArray[np.float32]
    full_image_margin: npt.NDArray[np.float32] | None
    distilled: npt.NDArray[np.float32] | None


def predict_views(
    classifier: Classifier,
    part: SplitData,
    world: World,
    *,
    precision: str,
    description: str = "",
) -> ViewPredictions:
    """Return predictions of all views and of the full image alone, computed in one pass."""
    head, distilled_head = classifier.head, classifier.distilled_head

    def outputs(features: torch.Tensor) -> torch.Tensor:
        columns = [head(features)]
        if isinstance(head, BagHead):
            columns.append(head.margins(features)[:, :1])
        if distilled_head is not None:
            columns.append(distilled_head(features[:, 0]))
        return torch.cat(columns, dim=1)

    classifier.eval()
    found = predict_columns(classifier, part, world, outputs, description, precision=precision)
    values = found.numpy()
    n_classes = len(classifier.spec.class_names)

    return ViewPredictions(
        values[:, :n_classes].copy(),
        values[:, n_classes].copy() if isinstance(head, BagHead) else None,
        values[:, n_classes + 1 :].copy() if distilled_head is not None else None,
    )


def predict_columns(
    classifier: Classifier,
    part: SplitData,
    world: World,
    function: Callable[[torch.Tensor], torch.Tensor],
    description: str,
    *,
    precision: str = "fp32",
) -> torch.Tensor:
    """Return `function` of the undistorted images' features, each computed once over all ranks.

    Features are dropped batch by batch.

    Args:
        classifier: The classifier.
        part: The split, of N images.
        world: The ranks.
        function: Maps features (n, 2h), or (n, V, 2h) of V views, to columns (n, k).
        description: Of the progress bar; none where it is empty.
        precision: Precision of the forward pass.

    Returns:
        (N, k) float32 on the CPU, equal on every rank.
    """

    def columns(_: Positions, images: torch.Tensor) -> torch.Tensor:
        return function(classifier.features(normalise(images, classifier.spec)))

    return infer_images(classifier, part, world, columns, description, precision)


def predict_corrupted(
    classifier: Classifier,
    part: SplitData,
    world: World,
    *,
    severity: int,
    seed: int,
    precision: str,
    description: str = "",
) -> npt.NDArray[np.float32]:
    """Return logits (N, K) float32 of images corrupted at one of `corruptions.SEVERITIES`."""
    parameters = corruptions.draw(
        step_rng(seed, severity, CachedImageStream.CORRUPTION), len(part), severity
    )

    def logits(rows: Positions, images: torch.Tensor) -> torch.Tensor:
        corrupted = corruptions.corrupt(images, parameters.take(rows), classifier.spec.image_size)
        return torch.Tensor(classifier(standardise(corrupted, classifier.spec)))

    classifier.eval()
    found = infer_images(classifier, part, world, logits, description, precision)

    return np.asarray(found.numpy())


def infer_images(
    classifier: Classifier,
    part: SplitData,
    world: World,
    function: Callable[[Positions, torch.Tensor], torch.Tensor],
    description: str,
    precision: str,
) -> torch.Tensor:
    """Return `infer` of a function of rows (n,) and their images (n, S, S, 3) uint8.

    The images have the size that the classifier sees, and are read ahead.
    """
    with part.resized(classifier.spec.image_size).reader(world.device) as reader:
        return infer(
            lambda rows: function(rows, reader.images(rows)),
            len(part),
            world,
            description,
            precision,
            batch_size=part_size(classifier, world),
            expect=reader.expect,
        )


def part_size(classifier: Classifier, world: World) -> PartSize:
    """Return how many images to take at a time, which remembers what fitted.

    About 32 views for the backbone. On a GPU it is doubled until memory or throughput ends, unless
    determinism is asked for: the size then depends on the clock, and results on it by rounding.
    """
    found = _part_sizes.get(classifier)
    if found is None:
        views = classifier.spec.views
        size = _BATCH if views is None else max(1, _BATCH // views.count)
        search = world.device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()
        found = _part_sizes[classifier] = PartSize(size, search=search)
    return found


def infer(
    function: Callable[[Positions], torch.Tensor],
    count: int,
    world: World,
    description: str,
    precision: str,
    *,
    batch_size: PartSize | int = _BATCH,
    expect: Callable[[Positions], None] | None = None,
) -> torch.Tensor:
    """Apply `function` to this rank's rows in batches, and gather the results of all ranks.

    Shape (count, ...); float32 on the CPU. Batches are halved where memory runs out; raises
    TransientError where a single row does not fit. `expect` is told of the rows that come next
    before each batch, for a function that reads ahead (`ReadAhead.expect`).
    """
    rows = np.arange(count, dtype=np.int64)[world.rows(count)]
    part = in_batches(
        function, rows, world, description, precision, batch_size=batch_size, expect=expect
    )
    return world.gather_rows(part, count)


def in_batches(
    function: Callable[[Positions], torch.Tensor],
    rows: Positions,
    world: World,
    description: str,
    precision: str,
    *,
    batch_size: PartSize | int = _BATCH,
    expect: Callable[[Positions], None] | None = None,
) -> torch.Tensor:
    """Apply `function` to `rows` in batches, on this rank alone.

    Shape (n, ...), float32, on the rank's device. Otherwise as `infer`.
    """
    size = PartSize(batch_size) if isinstance(batch_size, int) else batch_size

    with torch.no_grad(), _arithmetic(precision, world.device):
        parts = in_parts(lambda part: function(part).float(), rows, size, world, expect)
        quiet = not (world.is_main and description)
        found = list(progress(parts, description, total=len(rows), size=len, quiet=quiet))

    return torch.cat(found)


def _arithmetic(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Return the context of passes in a precision; fp32 is exact where the training has TF32."""
    if precision == "fp32":
        return single_precision(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
