"""False alarms and power of the drift test on features of real street scenes.

`python -m tests.simulations.drift --cache FOLDER [--draws 1000]` prints two Markdown tables. A draw
takes places of GTSDB at random: one part trains a head and is the training data's support, one is
the reference, one the new images. Without a shift every alarm is false. Natural shift: new images
of one recording day, reference and training of the other days. Graded shift: the deployment's
corruptions of severity 0 to 3, of all or of a fraction of the new images.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from components.detect_drift.comparison import Comparison, compare
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.drift_reference import DriftReference, as_half
from components.shared.policies.policy import Policy, softmax_policy
from tests.simulations.drift_features import Places, places
from tests.studies.gtsdb import SHARED

N_TRAIN, N_REFERENCE = 200, 150
LEVELS = (0.01, 0.05)
TESTS = ("classifier", "MMD", "margins (KS)", "support", "label shift (BBSE)")
_PERMUTATIONS = 199
_OUTCOMES = Outcomes.of(("None", "Roadwork"), "binary", "Roadwork")
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shift:
    """New images: n_new places, a fraction of them shifted.

    severity: of the corruption of the shifted ones; day: from which the shifted ones are. Neither:
    no shift.
    """

    n_new: int
    severity: int | None = None
    day: str | None = None
    fraction: float = 1.0

    @property
    def name(self) -> str:
        """The row's title."""
        if self.severity is None and self.day is None:
            return "none"
        what = f"severity {self.severity}" if self.day is None else f"another day ({self.day})"
        return what if self.fraction == 1 else f"{what}, {self.fraction:.0%} of the images"


def draw(found: Places, shift: Shift, rng: np.random.Generator) -> Comparison:
    """Compare one draw of new images with one draw of a reference."""
    n_shifted = round(shift.fraction * shift.n_new)
    order = rng.permutation(len(found.labels))
    shifted = found.clean[:0]
    if shift.day is not None:
        is_day = found.days[order] == shift.day
        shifted = found.clean[order[is_day][:n_shifted]]
        order = order[~is_day]
    elif shift.severity is not None:
        of_place = dict(zip(found.rows.tolist(), found.corrupted[shift.severity], strict=True))
        chosen = [place for place in order.tolist() if place in of_place][:n_shifted]
        shifted = np.stack([of_place[place] for place in chosen])
        order = order[~np.isin(order, chosen)]

    train, rest = order[:N_TRAIN], order[N_TRAIN:]
    held_out, rest = rest[:N_REFERENCE], rest[N_REFERENCE:]
    unshifted = rest[: shift.n_new - len(shifted)] if len(shifted) < shift.n_new else rest[:0]
    new = np.concatenate([shifted, found.clean[unshifted]])

    head = LogisticRegression(C=0.01, max_iter=200).fit(found.clean[train], found.labels[train])
    return compare(
        _reference(found, head, train, held_out),
        _policy(),
        as_half(new),
        _logits(head, new),
        false_alarm_rate=max(LEVELS),
        n_permutations=_PERMUTATIONS,
        seed=int(rng.integers(2**31)),
    )


def rejections(found: Comparison) -> npt.NDArray[np.bool_]:
    """Return (levels, tests): which tests reject; label shift by its interval, at 0.05 alone."""
    p_values = np.array(
        [
            found.classifier.p_value,
            found.mmd.p_value,
            found.margins.p_value,
            found.support.p_value,
        ]
    )
    labels = found.labels
    outside = labels.interval_95 is not None and not (
        labels.interval_95[1][0] <= labels.reference[1] <= labels.interval_95[1][1]
    )
    return np.array([[*(p_values <= level), outside and level == 0.05] for level in LEVELS])


def rates(found: Places, shift: Shift, draws: int, seed: int) -> npt.NDArray[np.float64]:
    """Return (levels, tests), the fraction of draws in which each test rejects."""
    rng = np.random.default_rng([seed, shift.n_new])
    return np.mean([rejections(draw(found, shift, rng)) for _ in range(draws)], axis=0)


def same_reference(
    found: Places, n_new: int, references: int, nights: int, seed: int
) -> list[float]:
    """Return, of several references, how often each alarms at 0.05 without a shift."""
    rng, alarms = np.random.default_rng([seed, 7]), []
    for _ in range(references):
        order = rng.permutation(len(found.labels))
        of_reference = Places(
            found.clean[order], found.labels[order], found.days[order], {}, found.rows[:0]
        )
        alarms.append(np.mean([_night(of_reference, n_new, rng) for _ in range(nights)]).item())
    return alarms


def _night(found: Places, n_new: int, rng: np.random.Generator) -> bool:
    """Whether a night's images alarm; the first places are training and reference every night."""
    first = N_TRAIN + N_REFERENCE
    rest = first + rng.permutation(len(found.labels) - first)[:n_new]
    kept = np.concatenate([np.arange(first), rest])
    fixed = Places(found.clean[kept], found.labels[kept], found.days[kept], {}, found.rows[:0])
    return bool(draw(fixed, Shift(n_new), _InOrder()).classifier.p_value <= 0.05)


class _InOrder(np.random.Generator):
    """A generator that leaves the places in their order."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def permutation(self, x: int) -> Rows:  # type: ignore[override]
        """Return 0 to x - 1."""
        return np.arange(x)


def _reference(
    found: Places, head: LogisticRegression, train: Rows, held_out: Rows
) -> DriftReference:
    return DriftReference(
        class_names=("None", "Roadwork"),
        features=as_half(found.clean[held_out]),
        logits=_logits(head, found.clean[held_out]).astype(np.float32),
        labels=found.labels[held_out],
        support=as_half(found.clean[train]),
        probe=as_half(found.clean[0]),
        n_groups=len(held_out),
    )


def _logits(head: LogisticRegression, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    margin = head.decision_function(values)
    return np.column_stack([np.zeros(len(margin)), margin])


def _policy() -> Policy:
    return softmax_policy(_OUTCOMES, float(np.log(0.1 / 0.9)))


def _no_shift(found: Places, draws: int) -> Iterator[str]:
    yield f"| new places | level | {' | '.join(TESTS)} |"
    yield "|---" * (2 + len(TESTS)) + "|"
    measured = rates(found, Shift(100), draws, seed=1)
    for level, row in zip(LEVELS, measured, strict=True):
        cells = [_interval(rate, draws) for rate in row]
        if level != 0.05:
            cells[-1] = ""
        yield f"| 100 | {level} | {' | '.join(cells)} |"


def _power(found: Places, draws: int) -> Iterator[str]:
    yield f"| shift | new places | {' | '.join(TESTS)} |"
    yield "|---" * (2 + len(TESTS)) + "|"
    shifts = [Shift(n, severity=s) for s in (0, 1, 2, 3) for n in (20, 50)]
    shifts += [Shift(100, severity=s, fraction=f) for s in (1, 3) for f in (0.1, 0.25, 0.5)]
    shifts += [Shift(20, day=day) for day in np.unique(found.days)]
    shifts += [Shift(100, day=day, fraction=0.25) for day in ("dayA", "dayD", "dayF")]
    for shift in shifts:
        measured = rates(found, shift, draws, seed=2)[LEVELS.index(0.05)]
        cells = " | ".join(f"{rate:.2f}" for rate in measured)
        yield f"| {shift.name} | {shift.n_new} | {cells} |"


def _interval(rate: float, draws: int) -> str:
    """Return a rate with its 95 % Clopper-Pearson interval."""
    count = round(rate * draws)
    low = beta.ppf(0.025, count, draws - count + 1) if count else 0
    high = beta.ppf(0.975, count + 1, draws - count) if count < draws else 1
    return f"{rate:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulations.drift", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data", type=Path, default=SHARED / "data/gtsdb", metavar="FOLDER")
    parser.add_argument(
        "--backbone", type=Path, default=SHARED / "weights/dinov2-small-imgfocus", metavar="FOLDER"
    )
    parser.add_argument("--draws", type=int, default=1000, help="without a shift")
    parser.add_argument("--power-draws", type=int, default=100, help="with each shift")
    parsed = parser.parse_args()

    found = places(parsed.data, parsed.backbone, parsed.cache)
    print(f"### No shift: {parsed.draws} draws\n", flush=True)
    for line in _no_shift(found, parsed.draws):
        print(line, flush=True)
    print(f"\n### Power at 0.05: {parsed.power_draws} draws\n", flush=True)
    for line in _power(found, parsed.power_draws):
        print(line, flush=True)

    alarms = same_reference(found, 50, references=20, nights=25, seed=3)
    print(
        f"\nOne reference for 25 nights, 20 references: it alarms in {np.mean(alarms):.1%} of the"
        f" nights on average, the most alarming one in {max(alarms):.0%}"
    )


if __name__ == "__main__":
    main()
