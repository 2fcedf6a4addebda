"""Calibrator and threshold from few images: what they cost and gain on images never seen.

Draws calibration sets, fits on them as the pipeline does, and measures on the rest: the NLL after
the automatically chosen calibrator, and accuracy and MCC at the chosen threshold, at 0.5, and at
the threshold that is best on the calibration set itself.

    python -m tests.simulations.few_images [--draws 200] [--logits resnet110_cifar10.npz]
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from components.shared.calibration.compare import LabelledLogits, fit_named
from components.shared.policies.fitting.sweep import best_threshold, sweep
from components.shared.policies.fitting.threshold import FnrLimit, fit_threshold
from components.shared.stats.metrics import Bools, Floats, log_softmax, mcc, nll

SIZES = (56, 112, 224, 500)
CALIBRATION_SIZES = (30, 60, 99, 166, 400)
_FEWEST = 3  # of either class
_MOST_TESTED = 4000


@dataclass(frozen=True)
class Draw:
    """Margins and labels of a calibration set, and of images to measure on."""

    margin: Floats
    truth: Bools
    test_margin: Floats
    test_truth: Bools


@dataclass(frozen=True)
class Source:
    """Draws calibration sets of a size; `most` is the largest that leaves images to measure on."""

    name: str
    draw: Callable[[np.random.Generator, int], Draw]
    most: int = 100_000


def binormal(name: str, prevalence: float, shift: float) -> Source:
    """Log-odds that are calibrated at a prevalence of 1/2, plus a shift: 0.5 may be wrong."""

    def draw(rng: np.random.Generator, count: int) -> Draw:
        truth = rng.random(count + _MOST_TESTED) < prevalence
        margin = shift + 2.5 * (rng.normal(size=len(truth)) + (2 * truth - 1) * 1.25)
        return Draw(margin[:count], truth[:count], margin[count:], truth[count:])

    return Source(name, draw)


def regression(name: str, features: Floats, truth: Bools, weights: str | None = None) -> Source:
    """Logistic regression of scikit-learn on 60 % of a data set, drawn anew each time."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def draw(rng: np.random.Generator, count: int) -> Draw:
        rows = rng.permutation(len(truth))
        n_train = int(0.6 * len(truth))
        train, calib, test = np.split(rows, [n_train, n_train + count])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight=weights))
        model.fit(features[train], truth[train])
        margin = model.decision_function(features)
        return Draw(margin[calib], truth[calib], margin[test], truth[test])

    return Source(name, draw, most=int(0.2 * len(truth)))


def resampled(name: str, margin: Floats, truth: Bools) -> Source:
    """Margins of images that a network has never seen."""

    def draw(rng: np.random.Generator, count: int) -> Draw:
        rows = rng.permutation(len(truth))
        calib, test = rows[:count], rows[count : count + _MOST_TESTED]
        return Draw(margin[calib], truth[calib], margin[test], truth[test])

    return Source(name, draw)


def sources(logits: Path | None) -> Iterator[Source]:
    """Yield all sources: first those for which 0.5 is right, then those for which it is wrong."""
    from sklearn.datasets import load_breast_cancer, load_digits

    tumours, digits = load_breast_cancer(), load_digits()
    yield regression("breast cancer, 10 features", tumours.data[:, :10], tumours.target == 0)
    pair = np.isin(digits.target, [3, 8])
    few_pixels = digits.data[pair][:, ::3]
    yield regression("digits 3 and 8, 22 pixels", few_pixels, digits.target[pair] == 8)
    yield regression("digit 8 of ten", digits.data, digits.target == 8)
    if logits is not None:
        yield from _cifar(logits)
    yield binormal("simulated", 0.5, 0.0)
    yield regression("digit 8, class weights", digits.data, digits.target == 8, "balanced")
    yield binormal("simulated, 10 % positive", 0.1, 0.0)
    yield binormal("simulated, shift 1.5", 0.5, 1.5)
    yield binormal("simulated, 30 %, shift 3", 0.3, 3.0)


def _cifar(file: Path) -> Iterator[Source]:
    with np.load(file, allow_pickle=False) as data:
        logits = np.concatenate([data["val_logits"], data["test_logits"]]).astype(np.float64)
        labels = np.concatenate([data["val_labels"], data["test_labels"]])
    pair = np.isin(labels, [3, 5])
    yield resampled("CIFAR-10 cat, dog", logits[pair, 5] - logits[pair, 3], labels[pair] == 5)
    others = np.logaddexp.reduce(np.delete(logits, 3, axis=1), axis=1)
    yield resampled("CIFAR-10 cat of ten", logits[:, 3] - others, labels == 3)


def threshold_row(source: Source, count: int, draws: int) -> str:
    """Return a row: accuracy and MCC at 0.5, and their changes at the two fitted thresholds."""
    changes = []
    for seed in range(draws):
        drawn = source.draw(np.random.default_rng([seed, count]), count)
        if min(drawn.truth.sum(), (~drawn.truth).sum()) < _FEWEST:
            continue
        changes.append([_scores(drawn, threshold) for threshold in (0.0, *_thresholds(drawn))])

    half, best, chosen = np.mean(changes, axis=0)
    return (
        f"| {source.name} | {count} | {half[0]:.4f} / {half[1]:.4f}"
        + f" | {best[0] - half[0]:+.4f} / {best[1] - half[1]:+.4f}"
        + f" | {chosen[0] - half[0]:+.4f} / {chosen[1] - half[1]:+.4f} |"
    )


def _thresholds(drawn: Draw) -> tuple[float, float]:
    """Return the threshold that is best on the samples, and the chosen one."""
    groups = [f"g{row}" for row in range(len(drawn.truth))]
    limit = FnrLimit(1.0, None)
    best = best_threshold(sweep(drawn.truth, drawn.margin, "mcc"))
    fit = fit_threshold(drawn.truth, drawn.margin, groups, objective="mcc", limit=limit, seed=0)
    return best.threshold, fit.best.threshold


def _scores(drawn: Draw, threshold: float) -> tuple[float, float]:
    decision = drawn.test_margin > threshold
    accuracy = float((decision == drawn.test_truth).mean())
    return accuracy, float(mcc(drawn.test_truth, decision))


def calibration_row(accuracy: float, scale: float, draws: int, sizes: Sequence[int]) -> str:
    """Return a row: NLL on new images of a model whose log-odds are `scale` times too extreme."""
    truth, margin = _calibrated(np.random.default_rng(0), 20_000, accuracy)
    cells = []
    for count in sizes:
        losses = []
        for seed in range(draws):
            labels, few = _calibrated(np.random.default_rng([seed, count]), count, accuracy)
            if labels.all() or not labels.any():
                continue
            samples = LabelledLogits(
                np.column_stack([np.zeros(count), scale * few]),
                labels.astype(np.int64),
                [f"g{row}" for row in range(count)],
                ("None", "Roadwork"),
            )
            logits = np.column_stack([np.zeros(len(margin)), scale * margin])
            calibrator = fit_named("auto", samples, seed).calibrator
            predicted = (
                log_softmax(logits) if calibrator is None else calibrator.log_probabilities(logits)
            )
            losses.append(float(-predicted[np.arange(len(truth)), truth.astype(int)].mean()))
        cells.append(f"{np.mean(losses):.3f}, {np.max(losses):.3f}")

    stated, best = float(nll(truth, scale * margin)), float(nll(truth, margin))
    return f"| {accuracy} | {scale} | {best:.3f} | {stated:.3f} | " + " | ".join(cells) + " |"


def _calibrated(rng: np.random.Generator, count: int, accuracy: float) -> tuple[Bools, Floats]:
    """Return labels and calibrated log-odds, normal given the class."""
    distance = 2 * norm.ppf(accuracy)
    truth = rng.random(count) < 0.5
    return truth, distance * (rng.normal(size=count) + (2 * truth - 1) * distance / 2)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--logits", type=Path, help="resnet110_cifar10.npz, for two more sources")
    args = parser.parse_args()

    # Calibrators are compared by cross-fitting, which takes longer.
    n_sets = max(args.draws // 4, 1)
    print("| accuracy | too extreme by | best NLL | uncalibrated | ", end="")
    print(" | ".join(f"n={count}: mean, largest" for count in CALIBRATION_SIZES), "|")
    print("|---" * (4 + len(CALIBRATION_SIZES)) + "|")
    for accuracy, scale in ((0.95, 1), (0.98, 1), (0.99, 1), (0.95, 2.5), (0.8, 2.5)):
        print(calibration_row(accuracy, scale, n_sets, CALIBRATION_SIZES), flush=True)

    print("\n| scores | n | at 0.5: accuracy / MCC | best on the set | chosen |")
    print("|---|---|---|---|---|")
    for source in sources(args.logits):
        for count in SIZES:
            if count <= source.most:
                print(threshold_row(source, count, args.draws), flush=True)


if __name__ == "__main__":
    main()
