"""Violations and coverage of certified policies on populations whose true risk is known.

`python -m tests.simulations.validity [--draws 1000] [--real resnet110_cifar10.npz] [--plot FILE]`
draws calibration sets from populations whose true risk is known, fits the
policy, and prints for each how often the true risk exceeded alpha, and the mean coverage beside the
oracle's and beside MAPIE's fixed sequence on the same samples. MAPIE gets thresholds at every 5 %
of coverage from 10 %, since from its default grid it certifies nothing here.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.shared.calibration.linear import Platt, Temperature
from components.shared.contracts.outcomes import Outcomes
from components.shared.policies.certify import Samples, certify
from components.shared.policies.policy import softmax_policy
from components.shared.stats.metrics import Bools, Floats, sigmoid, softmax

ALPHA, DELTA, TUNING_SHARE = 0.05, 0.1, 0.3
_GRID = (np.arange(40_000) + 0.5) / 40_000


@dataclass(frozen=True)
class Population:
    """scores (M,) of equally likely kinds of images, and how often stage 1 errs on each, in [0, 1].

    For SCRC a score is the absolute log-odds of the answer before calibration, >= 0; for the gate
    its raw score.
    """

    scores: Floats
    error_rate: Floats

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Floats, Bools]:
        """(count,) scores and errors."""
        rows = rng.integers(0, len(self.scores), count)
        return self.scores[rows], rng.random(count) < self.error_rate[rows]

    def at(self, threshold: float) -> tuple[float, float]:
        """(coverage, true risk) of "score >= threshold"."""
        accepted = self.scores >= threshold
        return float(accepted.mean()), (
            float(self.error_rate[accepted].mean()) if accepted.any() else 0.0
        )

    def oracle(self, alpha: float) -> float:
        """The largest coverage with a true risk of at most alpha."""
        order = np.argsort(-self.scores, kind="stable")
        risk = np.cumsum(self.error_rate[order]) / np.arange(1, len(order) + 1)
        last = np.r_[np.flatnonzero(np.diff(self.scores[order])), len(order) - 1]
        kept = last[risk[last] <= alpha]
        return float((kept.max() + 1) / len(order)) if len(kept) else 0.0


def shapes() -> dict[str, Population]:
    """Easy, hard, and with tied scores."""
    hard = 0.25 * (1 - _GRID)
    steps = np.ceil(_GRID * 10) / 10
    logit = np.log1p(_GRID) - np.log1p(-_GRID)
    return {
        "easy": Population(logit, 0.3 * (1 - _GRID) ** 3),
        "hard": Population(logit, hard),
        "tied": Population(steps, 0.25 * (1.05 - steps)),
    }


def real(file: Path) -> Population:
    """Confidence and errors of published logits of 15,000 images; samples are drawn from them with
    replacement.
    """
    with np.load(file, allow_pickle=False) as data:
        logits = np.concatenate([data["val_logits"], data["test_logits"]]).astype(np.float64)
        labels = np.concatenate([data["val_labels"], data["test_labels"]])
    confidence = softmax(logits).max(axis=1)
    log_odds = np.log(confidence) - np.log1p(-np.minimum(confidence, 1 - 1e-12))
    return Population(
        log_odds - log_odds.min(), np.asarray(logits.argmax(1) != labels, dtype=np.float64)
    )


def scrc_confidence(scores: Floats, error: Bools) -> Callable[[Floats], Floats]:
    """The confidence of the SCRC policy: the calibrated log-odds of the answer, fitted on the
    tuning part.

    Every second answer is taken for "none", which changes no error.
    """
    sign = np.where(np.arange(len(scores)) % 2, 1.0, -1.0)
    margin, truth = sign * scores, (sign > 0) ^ error
    calibrator = Temperature.fit(
        np.column_stack([np.zeros(len(scores)), margin]), truth.astype(np.int64)
    )
    policy = softmax_policy(
        Outcomes.of(("None", "Roadwork"), "binary", "Roadwork"), 0.0, calibrator
    )
    return lambda s: policy.confidence(np.column_stack([np.zeros(len(s)), s]))


def gate_confidence(scores: Floats, error: Bools) -> Callable[[Floats], Floats]:
    """The confidence of the gate policy: Platt-scaled gate scores."""
    if error.all() or not error.any():
        return lambda s: s
    fitted = Platt.fit(np.column_stack([np.zeros(len(scores)), scores]), (~error).astype(np.int64))
    return lambda s: fitted.slope[0] * s + fitted.intercept[0]


POLICIES = {"scrc": scrc_confidence, "gate": gate_confidence}


@dataclass(frozen=True)
class Outcome:
    """Over all draws: share with a true risk above alpha, mean coverage of both methods, the
    oracle's coverage.
    """

    violations: float
    coverage: float
    mapie_violations: float
    mapie_coverage: float
    oracle: float


def simulate(
    policy: str, population: Population, count: int, draws: int, alpha: float, *, mapie: bool
) -> Outcome:
    """Fit the policy on `draws` calibration sets of `count` images, a share of which tunes it."""
    rng, n_tuning = np.random.default_rng([count, draws]), round(TUNING_SHARE * count)
    ours, theirs = [], []
    for _ in range(draws):
        scores, error = population.draw(rng, count)
        scale = POLICIES[policy](scores[:n_tuning], error[:n_tuning])
        confidence, every = scale(scores), np.ones(count, dtype=bool)
        tuning, rest = (
            Samples(confidence[rows], error[rows], every[rows])
            for rows in (slice(n_tuning), slice(n_tuning, None))
        )
        found = certify(tuning, rest, alpha=alpha, delta=DELTA, coverage_delta=DELTA)
        scaled = Population(scale(population.scores), population.error_rate)
        ours.append(scaled.at(np.inf if found is None else found.threshold))
        if mapie:
            theirs.append(scaled.at(_mapie(tuning, rest, alpha)))
    both = np.array(ours), np.array(theirs or [(np.nan, np.nan)])
    violations = [float((values[:, 1] > alpha + 1e-12).mean()) for values in both]
    return Outcome(
        violations[0],
        both[0][:, 0].mean(),
        violations[1],
        both[1][:, 0].mean(),
        population.oracle(alpha),
    )


def _mapie(tuning: Samples, rest: Samples, alpha: float) -> float:
    """The threshold of MAPIE's fixed sequence with its precision controller; inf where it certifies
    none.
    """
    from mapie.risk_control import BinaryClassificationController

    # Its thresholds must lie in [0, 1].
    thresholds = np.unique(np.quantile(tuning.confidence, np.arange(0, 0.91, 0.05), method="lower"))
    controller = BinaryClassificationController(
        lambda x: np.column_stack([1 - x[:, 0], x[:, 0]]),
        "precision",
        1 - alpha,
        confidence_level=1 - DELTA,
        list_predict_params=sigmoid(thresholds),
        fwer_method="fixed_sequence",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        controller.calibrate(sigmoid(rest.confidence)[:, None], (~rest.loss).astype(int))
    valid = np.asarray(controller.valid_predict_params)
    return (
        float(thresholds[np.argmin(np.abs(sigmoid(thresholds) - valid.min()))])
        if len(valid)
        else np.inf
    )


def main() -> None:
    """Print the table as Markdown and draw coverage against the number of samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument(
        "--real", type=Path, help="logits with a published table; left out where not given"
    )
    parser.add_argument("--plot", type=Path, help="SVG file to write")
    parsed = parser.parse_args()
    cases = {name: (population, ALPHA) for name, population in shapes().items()}
    if parsed.real:
        cases["real"] = (real(parsed.real), 0.02)
    bound = DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / parsed.draws)
    print(f"{parsed.draws} draws, delta {DELTA}: violations may be {bound:.4f}\n")
    print(
        "| policy | population | alpha | n | violations | coverage | oracle | MAPIE violations |"
        " MAPIE coverage |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    table: dict[tuple[str, str], list[tuple[int, Outcome]]] = {}
    for policy in POLICIES:
        for name, (population, alpha) in cases.items():
            for count in (300, 1000, 3000):
                o = simulate(policy, population, count, parsed.draws, alpha, mapie=True)
                table.setdefault((policy, name), []).append((count, o))
                numbers = (o.violations, o.coverage, o.oracle, o.mapie_violations, o.mapie_coverage)
                shown = " | ".join(f"{number:.3f}" for number in numbers)
                print(f"| {policy} | {name} | {alpha:g} | {count} | {shown} |", flush=True)
    if parsed.plot:
        _plot(parsed.plot, table)


def _plot(file: Path, table: dict[tuple[str, str], list[tuple[int, Outcome]]]) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for _, name in table))
    with rc_context({"svg.hashsalt": "validity", "svg.fonttype": "none"}):
        figure = Figure(figsize=(3 * len(names), 3), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
            rows = table["scrc", name]
            counts = [count for count, _ in rows]
            axes.plot(counts, [o.coverage for _, o in rows], "o-", label="certified here")
            axes.plot(
                counts, [o.mapie_coverage for _, o in rows], "s--", label="MAPIE, same samples"
            )
            axes.axhline(rows[0][1].oracle, color="grey", linewidth=1, label="oracle")
            axes.set(title=name, xlabel="calibration samples", xscale="log", ylim=(0, 1))
        figure.axes[0].set_ylabel("coverage")
        figure.axes[0].legend(fontsize=8)
        figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
