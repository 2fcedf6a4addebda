"""Coverage of the 95 % intervals over groups, level of paired differences and calibration tests.

`python -m tests.simulations.intervals [--sets 400] [--table NAME]` draws data sets of G groups from
populations whose metrics are known, and prints how often the interval contains them, beside the
percentiles of the bootstrap over groups.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from components.evaluate.report.scorecard import LOSSES, metrics_of
from components.evaluate.targets import Targets
from components.shared.contracts.outcomes import BINARY, Outcomes
from components.shared.policies.predictions import Predictions
from components.shared.stats import metrics, risk_coverage
from components.shared.stats.bootstrap import (
    Statistic,
    intervals,
    paired_difference,
    replicates,
)
from components.shared.stats.metrics import Bools, Floats, Integers
from components.shared.stats.miscalibration import calibration_p_value, consistency_bands

N_GROUPS = (16, 24, 54)
_N_TRUTH = 20_000  # groups of the sample whose metrics count as true
_REPLICATES = 300
_EXCLUDED = ("expected_reward",)  # no other metric takes so long; it is a function of two rates
_ANSWERED_FROM = 1.0  # log-odds from which the simulated policy answers
# Risk and coverage that the populations can reach.
_TARGETS = Targets(risk=0.1, coverage=0.8, precision=0.9)


@dataclass(frozen=True)
class Population:
    """Distribution of groups of images.

    skewed: sizes are log-normal instead of about equal. prevalence: parameter of the symmetric beta
    distribution of a group's fraction of positives; small: groups are of one class. effect:
    standard deviation of a group's shift of the log-odds. signal: distance of the classes.
    """

    skewed: bool
    prevalence: float
    effect: float
    signal: float

    def draw(self, rng: np.random.Generator, n_groups: int) -> tuple[Integers, Bools, Floats]:
        """Return group index, truth and log-odds of the images, (N,) each."""
        sizes = 1 + rng.poisson(9, n_groups)
        if self.skewed:
            sizes = np.maximum(1, np.round(np.exp(rng.normal(1.8, 0.9, n_groups)))).astype(np.int64)

        member = np.repeat(np.arange(n_groups), sizes)
        prevalence = rng.beta(self.prevalence, self.prevalence, n_groups)
        truth = rng.random(len(member)) < prevalence[member]
        shift = rng.normal(0, self.effect, n_groups)[member] + rng.normal(0, 1.5, len(member))
        return member, truth, self.signal * (2 * truth - 1) + shift


POPULATIONS = {
    "mild": Population(skewed=False, prevalence=2.0, effect=1.0, signal=1.7),
    "skew": Population(skewed=True, prevalence=0.4, effect=1.5, signal=1.7),
    "accurate": Population(skewed=False, prevalence=0.4, effect=1.0, signal=4.0),
}


def predictions(member: Integers, truth: Bools, margin: Floats) -> Predictions:
    """Return the predictions of a policy that answers from a log-odds of 1 on."""
    confidence, decision = np.abs(margin), (margin > 0).astype(np.int64)
    return Predictions(
        outcomes=Outcomes.of(("negative", "positive")),
        truth=truth.astype(np.int64),
        decision=decision,
        probabilities=np.column_stack([metrics.sigmoid(-margin), metrics.sigmoid(margin)]),
        margin=margin,
        confidence=confidence,
        groups=tuple(f"{k:06d}" for k in member),
        answered=confidence >= _ANSWERED_FROM,
        answer_sets=np.eye(2, dtype=bool)[decision],
    )


def statistics(member: Integers, truth: Bools, margin: Floats) -> dict[str, Statistic]:
    """Return the scorecard's metrics that have intervals, as functions of weights."""
    made = predictions(member, truth, margin)
    return {
        metric.name: partial(metric.function, made, _TARGETS)
        for metric in metrics_of(BINARY).values()
        if metric.scale is not None and metric.name not in (*_EXCLUDED, "exit_both")
    }


SCALES = {
    metric.name: metric.scale for metric in metrics_of(BINARY).values() if metric.scale is not None
}


@dataclass(frozen=True)
class Coverage:
    """Of one metric: fractions of data sets.

    percentile: the bootstrap's percentiles contain the true value. student: this project's interval
    does. none: there is no interval, which counts in neither.
    """

    percentile: float
    student: float
    none: float
    zero_width: float


def coverage(population: Population, n_groups: int, n_sets: int) -> dict[str, Coverage]:
    """Return the coverage of the intervals of all metrics."""
    print(f"coverage with {n_groups} groups of {population}", file=sys.stderr, flush=True)
    true = {
        name: float("nan") if (value := function(None)) is None else float(value)
        for name, function in statistics(
            *population.draw(np.random.default_rng(99), _N_TRUTH)
        ).items()
    }
    rng = np.random.default_rng(n_groups)
    hits: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in true}

    for seed in range(n_sets):
        member, truth, margin = population.draw(rng, n_groups)
        if truth.all() or not truth.any():
            continue
        functions = statistics(member, truth, margin)
        found = intervals(functions, [f"{k:06d}" for k in member], _REPLICATES, seed, SCALES)
        drawn = replicates(functions, member, _REPLICATES, seed)
        if not (truth != (margin > 0)).any():
            found |= dict.fromkeys(LOSSES)
        for name, ours in found.items():
            low, high = np.nanquantile(drawn[name], [0.025, 0.975])
            hits[name].append(
                (
                    float(low <= true[name] <= high),
                    np.nan if ours is None else float(ours[0] <= true[name] <= ours[1]),
                    ours is not None and ours[0] == ours[1],
                )
            )

    return {name: _summary(np.array(values, dtype=float)) for name, values in hits.items()}


def _summary(values: Floats) -> Coverage:
    exists = np.isfinite(values[:, 1])
    student = float(values[exists, 1].mean()) if exists.any() else float("nan")
    return Coverage(
        float(values[:, 0].mean()), student, float(1 - exists.mean()), float(values[:, 2].mean())
    )


# --- Paired differences of models of which neither is better.


def paired_level(skewed: bool, n_groups: int, n_sets: int) -> dict[str, tuple[float, float]]:
    """Return by metric how often a difference of equal models is significant.

    First by the bootstrap's percentiles, then by `paired_difference`; nominally 0.05.
    """
    rng = np.random.default_rng(n_groups)
    rejected: dict[str, list[tuple[bool, bool]]] = {}
    for seed in range(n_sets):
        member, pairs = _two_models(rng, skewed, n_groups)
        for name, (first, second) in pairs.items():

            def difference(w: Floats | None, a: Statistic = first, b: Statistic = second) -> Floats:
                return np.asarray(a(w), dtype=float) - np.asarray(b(w), dtype=float)

            drawn = replicates({"": difference}, member, _REPLICATES, seed)[""]
            low, high = np.nanquantile(drawn, [0.025, 0.975])
            ours = paired_difference(first, second, member, _REPLICATES, seed).interval
            by_ours = ours is not None and not ours[0] <= 0 <= ours[1]
            rejected.setdefault(name, []).append((not low <= 0 <= high, by_ours))

    return {
        name: (float(np.mean([a for a, _ in values])), float(np.mean([b for _, b in values])))
        for name, values in rejected.items()
    }


def _two_models(
    rng: np.random.Generator, skewed: bool, n_groups: int
) -> tuple[Integers, dict[str, tuple[Statistic, Statistic]]]:
    """Return groups, and by metric the statistics of two exchangeable models."""
    spread = 0.9 if skewed else 0.3
    sizes = np.maximum(1, np.round(np.exp(rng.normal(1.8, spread, n_groups)))).astype(np.int64)
    member = np.repeat(np.arange(n_groups), sizes)
    truth = rng.random(len(member)) < rng.beta(0.7, 0.7, n_groups)[member]
    base = 1.7 * (2 * truth - 1) + rng.normal(0, 1, n_groups)[member]
    margins = [
        base + rng.normal(0, 0.7, n_groups)[member] + rng.normal(0, 1.2, len(member))
        for _ in range(2)
    ]
    gates = [
        np.abs(base) / 2 + rng.normal(0, 0.5, n_groups)[member] + rng.normal(0, 1, len(member))
        for _ in range(2)
    ]
    error = (margins[0] > 0) != truth

    def both(
        metric: Callable[..., Floats], first: tuple[object, ...], second: tuple[object, ...]
    ) -> tuple[Statistic, Statistic]:
        return partial(metric, *first), partial(metric, *second)

    a, b = margins
    return member, {
        "accuracy": both(metrics.accuracy, (truth, a > 0), (truth, b > 0)),
        "mcc": both(metrics.mcc, (truth, a > 0), (truth, b > 0)),
        "auroc": both(metrics.auroc, (truth, a), (truth, b)),
        "nll": both(metrics.nll, (truth, a), (truth, b)),
        "augrc of a gate": both(risk_coverage.augrc, (gates[0], error), (gates[1], error)),
    }


# --- Calibration.


def calibration_level(
    n_groups: int, n_sets: int, *, n_classes: int = 2, slope: float = 1.0, skewed: bool = False
) -> dict[str, float]:
    """Return how often a model is called miscalibrated, by the test and by the errors' bands.

    Half of the frames of a group share what decides their label.

    Args:
        n_groups: groups of a data set.
        n_sets: data sets.
        n_classes: 2: P(positive); more: all probabilities.
        slope: of the stated logits over the true ones; 1 is calibrated.
        skewed: log-normal sizes of groups instead of about equal ones.
    """
    rng = np.random.default_rng(n_groups)
    called: dict[str, list[bool]] = {}
    for seed in range(n_sets):
        sizes = 1 + rng.poisson(9, n_groups)
        if skewed:
            sizes = np.maximum(1, np.round(np.exp(rng.normal(1.8, 0.9, n_groups)))).astype(np.int64)
        member = np.repeat(np.arange(n_groups), sizes)
        shape = (len(member), n_classes)
        logits = rng.normal(0, 1.5, (n_groups, n_classes))[member] + rng.normal(0, 0.3, shape)
        shared = rng.gumbel(size=(n_groups, n_classes))[member]
        alike = rng.random(len(member)) < 0.5
        noise = np.where(alike[:, None], shared, rng.gumbel(size=shape))
        truth: Bools | Integers = (logits + noise).argmax(axis=1)
        probability = metrics.softmax(slope * logits)
        if n_classes == 2:
            truth, probability = truth == 1, probability[:, 1]

        groups = [f"{k:06d}" for k in member]
        made = consistency_bands(truth, probability, groups, _REPLICATES, seed)
        p_value = calibration_p_value(truth, probability, groups, _REPLICATES, seed)
        called.setdefault("test", []).append(p_value is not None and p_value <= 0.05)
        for name, error in _errors(truth, probability).items():
            band = made[name]
            called.setdefault(name, []).append(band is not None and error > band[1])

    return {name: float(np.mean(values)) for name, values in called.items()}


def _errors(truth: Bools | Integers, probability: Floats) -> dict[str, float]:
    from components.shared.stats import calibration_error as errors

    top = errors.top_label(truth, probability)
    found = {
        "ece_top_label": errors.ece(*top),
        "ece_equal_mass": errors.ece_equal_mass(*top),
        "ce_debiased": errors.ce_debiased(*top),
        "mce_top_label": errors.mce(*top),
    }
    if probability.ndim == 1:
        found["ece_positive_class"] = errors.ece(truth.astype(bool), probability)
    else:
        found["ece_classwise"] = errors.ece_classwise(truth.astype(np.int64), probability)
    return {name: float(value) for name, value in found.items()}


# --- Tables.


def coverage_table(n_sets: int) -> Iterator[str]:
    """Yield the Markdown table of coverages: percentiles, then this project's."""
    columns = [(name, n_groups) for name in POPULATIONS for n_groups in N_GROUPS]
    found = [coverage(POPULATIONS[name], n_groups, n_sets) for name, n_groups in columns]
    yield "| metric | " + " | ".join(f"{name} {n}" for name, n in columns) + " |"
    yield "|---" * (1 + len(columns)) + "|"
    for metric in found[0]:
        cells = [f"{f[metric].percentile:.2f} → {f[metric].student:.3f}" for f in found]
        yield f"| {metric} | " + " | ".join(cells) + " |"
    none = [max(value.none for value in f.values()) for f in found]
    yield "| largest fraction without an interval | " + " | ".join(f"{n:.2f}" for n in none) + " |"


def paired_table(n_sets: int) -> Iterator[str]:
    """Yield the Markdown table of paired differences."""
    columns = [(skewed, n_groups) for skewed in (False, True) for n_groups in N_GROUPS]
    found = [paired_level(skewed, n_groups, n_sets) for skewed, n_groups in columns]
    heads = [f"{'skew' if skewed else 'mild'} {n}" for skewed, n in columns]
    yield "| metric | " + " | ".join(heads) + " |"
    yield "|---" * (1 + len(columns)) + "|"
    for metric in found[0]:
        cells = [f"{f[metric][0]:.3f} → {f[metric][1]:.3f}" for f in found]
        yield f"| {metric} | " + " | ".join(cells) + " |"


def calibration_table(n_sets: int) -> Iterator[str]:
    """Yield the Markdown table of levels and powers of the test and the bands."""
    errors = "ECE | equal mass | debiased | MCE | other ECE"
    yield f"| classes | groups | sizes | logits | test | {errors} |"
    yield "|---" * 10 + "|"
    for n_classes in (2, 5):
        for n_groups in N_GROUPS:
            for skewed in (False, True):
                for slope in (1.0, 2.0):
                    found = calibration_level(
                        n_groups, n_sets, n_classes=n_classes, slope=slope, skewed=skewed
                    )
                    shown = " | ".join(f"{value:.3f}" for value in found.values())
                    sizes = "skew" if skewed else "mild"
                    stated = "calibrated" if slope == 1 else f"{slope:g} times too large"
                    yield f"| {n_classes} | {n_groups} | {sizes} | {stated} | {shown} |"


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--table", choices=["coverage", "paired", "calibration"])
    parsed = parser.parse_args()
    tables = {"coverage": coverage_table, "paired": paired_table, "calibration": calibration_table}
    for name, table in tables.items():
        if parsed.table in (None, name):
            for line in table(parsed.sets):
                print(line, flush=True)
            print()


if __name__ == "__main__":
    main()
