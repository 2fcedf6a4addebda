"""Wrong promotions in 500 nights, and the power against a better model.

`python -m tests.simulations.promotion [--series 600]` draws VAL_TEST in groups, and night after
night a challenger that is not better than the champion. A series is wrong if any of them is
promoted; the budget limits how many series are. Beside the levels of `spending` stand two rules
that know nothing of the number of nights: a test at 5 % every night, and the ladder of Blum and
Hardt in its form without parameters, which wants a gain of one standard error. The second table is
the probability that a model that is better by .03 MCC is promoted, by the number of the comparison.

A model answers by a score: the truth, what the images of a group have in common, what an image has
for all models, and noise of its own, of variances that add up to 1.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest

from components.promote_bundle.spending import level
from components.shared.stats import multiclass
from components.shared.stats.bootstrap import Statistic
from components.shared.stats.metrics import Bools, Floats, Integers, mcc_of_counts
from components.shared.stats.one_sided import paired_contributions

BUDGET = 0.05
NIGHTS = 500
GAIN = 0.03
MCC = 0.8  # of the champion, where classes are balanced
# Fraction of the standard errors that a normal gain needs, below which the test shows none.
_WORTH_TESTING = 0.8


@dataclass(frozen=True)
class Quality:
    """How well a model answers.

    Attributes:
        signal: distance of the classes' mean scores from 0, in standard deviations.
        threshold: "positive if the score exceeds it".
        blind: fraction of the groups in which the score has no signal.
    """

    signal: float
    threshold: float = 0.0
    blind: float = 0.0

    def mcc(self, prevalence: float) -> float:
        """Return the MCC on images without end."""
        seen = 1 - self.blind
        tpr = seen * ndtr(self.signal - self.threshold) + self.blind * ndtr(-self.threshold)
        tnr = seen * ndtr(self.signal + self.threshold) + self.blind * ndtr(self.threshold)
        no, yes = 1 - prevalence, prevalence
        cells = (no * tnr, no * (1 - tnr), yes * (1 - tpr), yes * tpr)
        tn, fp, fn, tp = (np.asarray(cell) for cell in cells)
        return float(mcc_of_counts(tn, fp, fn, tp))


def quality(
    mcc: float, prevalence: float, *, threshold: float = 0.0, blind: float = 0.0
) -> Quality:
    """Return a model of this MCC."""
    signal = brentq(
        lambda s: Quality(s, threshold, blind).mcc(prevalence) - mcc, 0.01, 8, xtol=1e-12
    )
    return Quality(float(signal), threshold, blind)


@dataclass(frozen=True)
class TestImages:
    """One draw of VAL_TEST: N images in groups, and what all models see of them."""

    __test__ = False

    truth: Bools
    member: Integers
    common: Floats
    own_deviation: float

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        n_groups: int,
        *,
        prevalence: float = 0.5,
        own: float = 0.25,
    ) -> "TestImages":
        """Groups of 1 to 12 images, 3 in the mean; `own`: variance of a model's own noise."""
        size = np.minimum(rng.geometric(1 / 3, n_groups), 12)
        member = np.repeat(np.arange(n_groups), size)
        # Frames of a place mostly show the same: three of four have the group's truth.
        of_group = rng.random(n_groups) < prevalence
        alone = rng.random(len(member)) < prevalence
        truth = np.where(rng.random(len(member)) < 0.75, of_group[member], alone)
        shared = np.sqrt(0.2) * rng.normal(size=n_groups)[member]
        shared = shared + np.sqrt(0.8 - own) * rng.normal(size=len(member))
        return cls(truth, member, shared, float(np.sqrt(own)))

    def decisions(self, rng: np.random.Generator, model: Quality) -> Bools:
        """Return what a model decides."""
        n_groups = int(self.member.max()) + 1
        blind = (rng.random(n_groups) < model.blind)[self.member]
        signal = np.where(blind, 0.0, model.signal) * np.where(self.truth, 1, -1)
        noise = self.own_deviation * rng.normal(size=len(self.truth))
        return np.asarray(signal + self.common + noise > model.threshold)

    def scored(self, decisions: Bools) -> tuple[Floats, Floats]:
        """Return the MCC of decisions (M, N), (M,), and without each of the groups, (M, G)."""
        n_models, n_groups = len(decisions), int(self.member.max()) + 1
        cell = 4 * self.member + 2 * self.truth.astype(np.int64) + decisions
        shifted = cell + 4 * n_groups * np.arange(n_models)[:, None]
        flat = np.bincount(shifted.ravel(), minlength=4 * n_groups * n_models)
        counts = flat.reshape(n_models, n_groups, 4).astype(np.float64)
        of_all = counts.sum(axis=1)
        left_out = of_all[:, None] - counts
        return mcc_of_counts(*of_all.T), mcc_of_counts(*np.moveaxis(left_out, -1, 0))

    def p_value(self, challenger: Bools, champion: Bools) -> float:
        """Return the p-value of the comparison, as the phase computes it."""
        truth = self.truth.astype(np.int64)

        def score(decision: Bools) -> Statistic:
            return lambda w: multiclass.mcc(truth, decision.astype(np.int64), 2, w)

        found = paired_contributions(score(challenger), score(champion), self.member, 0)
        return 1.0 if found is None else found.p_value()


def errors_of(gain: Floats, left_out: Floats) -> Floats:
    """Return gains (M,) in standard errors, from the gains without each group (M, G)."""
    spread = np.sqrt(((left_out - left_out.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    return np.asarray(gain / np.maximum(spread, 1e-12))


@dataclass(frozen=True)
class Setting:
    """Challengers of one kind: `draw` gives the next one's quality, of an MCC at most the best."""

    name: str
    n_groups: int
    prevalence: float
    champion: Quality
    draw: Callable[[np.random.Generator], Quality]


def settings(n_groups: int = 200) -> list[Setting]:
    """Return the kinds of challengers that are not better."""
    even, rare = quality(MCC, 0.5), quality(MCC - 0.1, 0.1)
    worse = {loss: quality(MCC - loss, 0.5) for loss in np.linspace(0, 0.05, 11).tolist()}
    other = quality(MCC, 0.5, threshold=0.35)
    blind = {fraction: quality(MCC, 0.5, blind=fraction) for fraction in (0.08, 0.15)}
    losses = list(worse)
    return [
        Setting("equal", n_groups, 0.5, even, lambda _: even),
        Setting("equal, 1 of 10 images positive", n_groups, 0.1, rare, lambda _: rare),
        Setting("equal MCC, other threshold", n_groups, 0.5, even, lambda _: other),
        Setting(
            "equal MCC, blind in 8 % of the groups", n_groups, 0.5, even, lambda _: blind[0.08]
        ),
        Setting(
            "equal MCC, blind in 15 % of the groups", n_groups, 0.5, even, lambda _: blind[0.15]
        ),
        Setting(
            "equal to worse by .05", n_groups, 0.5, even, lambda rng: worse[rng.choice(losses)]
        ),
        Setting("equal, 60 groups", 60, 0.5, even, lambda _: even),
        Setting("equal MCC, blind in 8 % of 60 groups", 60, 0.5, even, lambda _: blind[0.08]),
    ]


@dataclass(frozen=True)
class Found:
    """Fractions of the series of a setting in which a rule promotes a model that is not better.

    Attributes:
        spending: the rule of the phase.
        every_night: a test at 5 % every night.
        ladder: one standard error.
    """

    spending: float
    every_night: float
    ladder: float


def simulate(setting: Setting, n_series: int, nights: int, seed: int = 0) -> Found:
    """Draw series of nights, each with its own VAL_TEST, and follow the three rules."""
    rows = [_series(setting, nights, np.random.default_rng([seed, k])) for k in range(n_series)]
    spending, every_night, ladder = np.array(rows, dtype=float).mean(axis=0).tolist()
    return Found(spending, every_night, ladder)


def is_worth_testing(errors: float, allowed: float) -> bool:
    """Whether a gain of so many standard errors could have a p-value of at most `allowed`."""
    return bool(errors >= _WORTH_TESTING * -ndtri(allowed))


def _series(setting: Setting, nights: int, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Return whether each of the rules promotes a model that is not better."""
    images = TestImages.draw(rng, setting.n_groups, prevalence=setting.prevalence)
    models = [setting.champion, *(setting.draw(rng) for _ in range(nights))]
    decisions = np.array([images.decisions(rng, model) for model in models])
    true = {model: model.mcc(setting.prevalence) for model in set(models)}
    value, without = images.scored(decisions)

    def is_wrong(passes: Callable[[int, int, float], bool]) -> bool:
        champion, night = 0, 1
        while night <= nights:
            errors = errors_of(value[night:] - value[champion], without[night:] - without[champion])
            # Only a night with a gain can promote.
            for offset in np.flatnonzero(errors > 1).tolist():
                if passes(night + offset, champion, float(errors[offset])):
                    break
            else:
                return False
            promoted = night + offset
            if true[models[promoted]] <= true[models[champion]] + 1e-9:
                return True
            champion, night = promoted, promoted + 1
        return False

    def by_spending(night: int, champion: int, errors: float) -> bool:
        allowed = level(night, BUDGET)
        if not is_worth_testing(errors, allowed):
            return False
        return images.p_value(decisions[night], decisions[champion]) <= allowed

    return (
        is_wrong(by_spending),
        is_wrong(lambda night, champion, errors: errors > -ndtri(0.05)),
        is_wrong(lambda night, champion, errors: errors > 1),
    )


def power(
    n_groups: int, numbers: list[int], draws: int, *, own: float = 0.25, seed: int = 0
) -> list[float]:
    """Return the probability of promotion of a model that is better by GAIN, by the comparison."""
    worse, better = quality(MCC, 0.5), quality(MCC + GAIN, 0.5)
    p_values = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        images = TestImages.draw(rng, n_groups, own=own)
        p_values.append(images.p_value(images.decisions(rng, better), images.decisions(rng, worse)))
    return [float((np.array(p_values) <= level(number, BUDGET)).mean()) for number in numbers]


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--series", type=int, default=600)
    parser.add_argument("--nights", type=int, default=NIGHTS)
    parser.add_argument("--draws", type=int, default=300)
    parsed = parser.parse_args()

    print(f"{parsed.series} series of {parsed.nights} nights, budget {BUDGET}\n")
    print(
        "| challengers | groups | spent from the budget (95 %) | test at 5 % every night | ladder |"
    )
    print("|---|---|---|---|---|")
    for setting in settings():
        found = simulate(setting, parsed.series, parsed.nights)
        wrong = binomtest(round(found.spending * parsed.series), parsed.series).proportion_ci()
        print(
            f"| {setting.name} | {setting.n_groups} | {found.spending:.3f}"
            f" ({wrong.low:.3f} to {wrong.high:.3f}) |"
            f" {found.every_night:.3f} | {found.ladder:.3f} |",
            flush=True,
        )

    numbers = [1, 5, 20, 100, 500]
    print(f"\nPower against a gain of {GAIN} MCC, {parsed.draws} draws, 3 images a group\n")
    print("| groups | models | " + " | ".join(f"comparison {n}" for n in numbers) + " |")
    print("|---|---|" + "---|" * len(numbers))
    for n_groups in (100, 300, 1000, 3000):
        for name, own in (("alike", 0.1), ("other seeds", 0.25)):
            powers = power(n_groups, numbers, parsed.draws, own=own)
            cells = " | ".join(f"{value:.2f}" for value in powers)
            print(f"| {n_groups} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
