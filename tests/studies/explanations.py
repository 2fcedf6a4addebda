"""Study of how faithful explanations are: `python -m tests.studies.explanations run FOLDER`.

Patches are deleted from the pixels in the order of their parts of the margin, and the model looks
at the image again. If the parts say what the model uses, the margin falls faster than with random
patches when those that speak for the positive class go first, and rises, or falls more slowly, when
those that speak against it go first. The same map moved by half the image is a stricter control
than random patches: its patches hang together as the map's do, and lie elsewhere.

FOLDER is what `python -m pipelines run --demo --output FOLDER` wrote, or any other run of one view;
images are drawn from VAL_TEST. `python -m tests.studies.explanations gtsdb --cache FOLDER` takes
street scenes of GTSDB, a frozen DINOv2-S and heads that never saw the day they explain. Minutes for
the demo, a quarter of an hour for GTSDB on one core.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from components.shared.contracts.progress import progress
from components.shared.data.dataset import Dataset
from components.shared.data.decode import decode_resized
from components.shared.data.margin_parts import cls_share
from components.shared.data.splits import read_splits
from components.shared.models.backbone import image_statistics, load_backbone
from components.shared.models.classifier import Classifier, Head, normalise
from components.shared.models.explanation import split_margins
from components.shared.serving.bundle import open_bundle
from components.shared.serving.predictor import load_network
from components.shared.stats.bootstrap import membership, paired_difference
from components.shared.stats.metrics import auroc
from components.shared.vision.classifier_spec import ClassifierSpec
from tests.studies.features import CLASSES, Regime, features, labelled_records
from tests.studies.gtsdb import SHARED, Data

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
FRACTIONS = (0.1, 0.2, 0.4)
_N_RANDOM = 2  # orders of random patches, whose mean is the control
_BLUR = 16  # pixels: more than a patch
_REPLICATES = 2000
BACKBONE = SHARED / "weights/dinov2-small-imgfocus"


@dataclass(frozen=True)
class Scene:
    """An image, the model that looks at it, and its group.

    Attributes:
        pixels: (S, S, 3).
        classifier: of one view and two classes.
        positive: Index of the positive class.
        reference: (2h,) mean features of other images; None: zeros.
        group: Place or drive.
    """

    pixels: Pixels
    classifier: Classifier
    positive: int
    reference: torch.Tensor | None
    group: str


@dataclass(frozen=True)
class Deletion:
    """What one image's margin lost, by order and fraction of deleted patches.

    Attributes:
        drops: By order, (F,) margin of the whole image minus that of the deleted.
        share: The CLS token's share of the evidence.
    """

    drops: dict[str, Floats]
    share: float


def mean_colour(pixels: Pixels) -> Pixels:
    """An image of the mean colour of this one."""
    return np.broadcast_to(pixels.mean(axis=(0, 1)).astype(np.uint8), pixels.shape)


def blurred(pixels: Pixels) -> Pixels:
    """The image out of focus, in which no patch keeps its content."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(_BLUR)))


FILLS: dict[str, Callable[[Pixels], Pixels]] = {"mean colour": mean_colour, "blur": blurred}


def orders(parts: Floats, rng: np.random.Generator) -> dict[str, list[npt.NDArray[np.int64]]]:
    """Orders in which the patches (H, W) are deleted, several where their mean is reported."""
    first = np.argsort(-parts.ravel(), kind="stable")
    moved = np.roll(parts, [n // 2 for n in parts.shape], axis=(0, 1))
    return {
        "speaks for": [first],
        "speaks against": [first[::-1]],
        "random": [rng.permutation(parts.size) for _ in range(_N_RANDOM)],
        "moved map": [np.argsort(-moved.ravel(), kind="stable")],
    }


def without(
    pixels: Pixels, fill: Pixels, order: npt.NDArray[np.int64], shape: tuple[int, int]
) -> Pixels:
    """The images (F, S, S, 3) of which the first patches of an order are filled, by FRACTIONS."""
    size = pixels.shape[0] // shape[0]
    found = []
    for fraction in FRACTIONS:
        gone = np.zeros(shape, dtype=bool)
        gone.ravel()[order[: round(fraction * order.size)]] = True
        mask = np.zeros(pixels.shape[:2], dtype=bool)
        wide = np.kron(gone, np.ones((size, size), dtype=bool))
        mask[: wide.shape[0], : wide.shape[1]] = wide
        found.append(np.where(mask[..., None], fill, pixels))
    return np.stack(found)


def deletions(scene: Scene, seed: int) -> dict[str, Deletion]:
    """What deleting patches of an image does to its margin, by fill."""
    k = torch.tensor([scene.positive])
    spec = scene.classifier.spec
    with torch.inference_mode():
        tokens = scene.classifier.tokens(normalise(torch.from_numpy(scene.pixels[None]), spec))
        parts = split_margins(scene.classifier, tokens, k, reference=scene.reference)
    patches = parts.patches[0].numpy()
    share = cls_share(float(parts.cls[0]), float(patches.sum()))
    whole = float(parts.margin[0])

    found = {}
    for name, fill in FILLS.items():
        filled, rng = fill(scene.pixels), np.random.default_rng(seed)
        drops = {
            order: np.mean(
                [
                    whole - _margins(scene, without(scene.pixels, filled, one, patches.shape))
                    for one in several
                ],
                axis=0,
            )
            for order, several in orders(patches, rng).items()
        }
        found[name] = Deletion(drops, share)
    return found


def _margins(scene: Scene, images: Pixels) -> Floats:
    """(B,) margins of the positive class."""
    with torch.inference_mode():
        logits = scene.classifier(normalise(torch.from_numpy(images), scene.classifier.spec))
    margin = logits[:, scene.positive] - logits[:, 1 - scene.positive]
    return np.asarray(margin.double().numpy())


def table(found: Sequence[dict[str, Deletion]], groups: Sequence[str]) -> Iterator[str]:
    """Markdown: mean loss of margin by fill and order, and paired differences of the curve."""
    cells = " | ".join(f"{fraction:.0%} gone" for fraction in FRACTIONS)
    controls = "minus random | 95 % | minus moved map | 95 %"
    yield f"| fill | first deleted | {cells} | mean | {controls} |"
    yield "|---" * (7 + len(FRACTIONS)) + "|"
    for fill in FILLS:
        for order in found[0][fill].drops:
            drops = np.array([one[fill].drops[order] for one in found])
            row = [f"{value:+.2f}" for value in (*drops.mean(axis=0), drops.mean())]
            for control in ("random", "moved map"):
                others = np.array([one[fill].drops[control] for one in found])
                row += [""] * 2 if order == control else _difference(drops, others, groups)
            yield f"| {fill} | {order} | {' | '.join(row)} |"


def _difference(ours: Floats, theirs: Floats, groups: Sequence[str]) -> list[str]:
    """Mean difference of two curves (N, F) and its interval over groups."""

    def mean(values: Floats, weights: Floats | None) -> Floats:
        if weights is None:
            return np.asarray(values.mean())
        return np.asarray(weights @ values / weights.sum(axis=1))

    member = membership(groups, len(groups))
    difference = paired_difference(
        partial(mean, ours.mean(axis=1)), partial(mean, theirs.mean(axis=1)), member, _REPLICATES, 0
    )
    interval = difference.interval
    ends = "too few groups" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
    return [f"{difference.value:+.2f}", ends]


def scenes_of_run(run: Path, count: int) -> list[Scene]:
    """Images of VAL_TEST of a run, drawn at random, and its bundle's model with the threshold."""
    bundle = open_bundle(run / "export-bundle/bundle")
    data = Dataset.open(run / "ingest-dataset/dataset")
    ids = read_splits(run / "split-dataset/splits").ids("VAL_TEST")
    network = load_network(bundle)
    positive = network.order[bundle.policy.outcomes.positive_index]
    reference = None
    if bundle.has_reference:
        mean = bundle.drift_reference().features.astype(np.float64).mean(axis=0)
        reference = torch.from_numpy(mean)

    drawn = np.random.default_rng(0).permutation(len(ids))[:count]
    rows = [data.index[ids[row]] for row in np.sort(drawn)]
    images = data.resized(bundle.spec.image_size).images(np.array(rows))
    return [
        Scene(image, network.classifier, positive, reference, data.samples[row].group)
        for image, row in zip(images, rows, strict=True)
    ]


def scenes_of_gtsdb(folder: Path, weights: Path, cache: Path, count: int) -> list[Scene]:
    """Half of the images with visible equipment, half without; heads of the other five days."""
    records = labelled_records(folder)
    values = features(records, weights, Regime(224), cache, precision="fp32").values[:, 0]
    data = Data.of(records, "visible equipment")
    x = values[data.kept].astype(np.float64)
    heads = {day: _logistic_head(x, data, day) for day in np.unique(data.days)}
    margins = np.array(
        [x[i] @ heads[day][0] + heads[day][1] for i, day in enumerate(data.days.tolist())]
    )
    print(f"AUROC of the heads on days they never saw: {auroc(data.truth, margins):.3f}")

    rng, chosen = np.random.default_rng(0), []
    for side in (data.truth, ~data.truth):
        chosen += rng.permutation(np.flatnonzero(side))[: count // 2].tolist()
    backbone = load_backbone(str(weights)).eval()
    mean, std = image_statistics(str(weights))
    spec = ClassifierSpec(CLASSES, 224, mean, std, backbone.config.model_type, None)

    found = []
    for row in sorted(chosen):
        weight, bias, reference = heads[data.days[row]]
        head = Head(2 * backbone.config.hidden_size, 2)
        with torch.no_grad():
            head.linear.weight.copy_(torch.from_numpy(np.stack([0 * weight, weight])))
            head.linear.bias.copy_(torch.tensor([0.0, bias]))
        pixels = decode_resized(records[data.kept[row]].read(), size=224).copy()
        classifier = Classifier(backbone, head, spec).eval()
        found.append(Scene(pixels, classifier, 1, torch.from_numpy(reference), data.places[row]))
    return found


def _logistic_head(x: Floats, data: Data, day: str) -> tuple[Floats, float, Floats]:
    """Weight (2h,), bias and mean features (2h,) of the images of all other days."""
    train = data.days != day
    scale = StandardScaler().fit(x[train])
    fit = LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced")
    fit.fit(scale.transform(x[train]), data.truth[train])
    weight = fit.coef_[0] / scale.scale_
    return weight, float(fit.intercept_[0] - weight @ scale.mean_), x[train].mean(axis=0)


def report(scenes: Sequence[Scene]) -> Iterator[str]:
    """Lines of Markdown about these images."""
    found = [
        deletions(scene, seed)
        for seed, scene in enumerate(progress(scenes, "deletions", total=len(scenes)))
    ]
    groups = [scene.group for scene in scenes]
    shares = [next(iter(one.values())).share for one in found]
    quartiles = ", ".join(f"{value:.0%}" for value in np.quantile(shares, [0.25, 0.5, 0.75]))
    yield f"{len(scenes)} images of {len(set(groups))} groups."
    yield f"The CLS token's share of the evidence: {quartiles} (quartiles).\n"
    yield from table(found, groups)

    low = np.array(shares) <= np.median(shares)
    for name, kept in (("at most", low), ("more than", ~low)):
        some = [one for one, is_kept in zip(found, kept, strict=True) if is_kept]
        places = [group for group, is_kept in zip(groups, kept, strict=True) if is_kept]
        yield f"\nImages of which the CLS token has {name} the median share:\n"
        yield from table(some, places)


def main() -> None:
    """Print the tables of a run or of GTSDB."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.studies.explanations", description=__doc__
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="a run's bundle on its VAL_TEST")
    run.add_argument("folder", type=Path, metavar="FOLDER")
    gtsdb = verbs.add_parser("gtsdb", help="GTSDB, a frozen DINOv2-S, linear heads")
    gtsdb.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    gtsdb.add_argument("--data", type=Path, default=SHARED / "data/gtsdb", metavar="FOLDER")
    gtsdb.add_argument("--backbone", type=Path, default=BACKBONE, metavar="FOLDER")
    for verb in (run, gtsdb):
        verb.add_argument("--images", type=int, default=60, metavar="N")
    parsed = parser.parse_args()

    if parsed.verb == "run":
        scenes = scenes_of_run(parsed.folder, parsed.images)
    else:
        scenes = scenes_of_gtsdb(parsed.data, parsed.backbone, parsed.cache, parsed.images)
    for line in report(scenes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
