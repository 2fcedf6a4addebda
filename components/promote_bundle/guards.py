"""Guards: what must not become worse, whatever the objective gains.

A guard refuses where the images show that something is worse, not where they leave it open: the
first error is bounded by the comparison, and a guard that asked for a proof would refuse every
challenger on small slices.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from components.promote_bundle.challenger import Guarantee
from components.promote_bundle.config import PromoteConfig
from components.promote_bundle.objectives import Objective, of_slice
from components.shared.policies.policy import Policy, SelectivePolicy
from components.shared.policies.predictions import Predictions
from components.shared.serving.bundle import Bundle
from components.shared.stats import calibration_error
from components.shared.stats.bootstrap import Statistic, membership, paired_difference
from components.shared.stats.metrics import Integers
from components.shared.stats.slices import Slice, SliceEstimate, compare_models

_MOST_NAMED = 3  # slices in the reason of a refusal; the report has all


@dataclass(frozen=True)
class Guard:
    """One guard.

    Attributes:
        name: what it guards.
        holds: False where it refuses the challenger.
        reason: what was found, one line.
    """

    name: str
    holds: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a decision's evidence."""
        return asdict(self)


@dataclass(frozen=True)
class SliceResult:
    """The gain of the challenger on one slice.

    Attributes:
        column: of the slice.
        value: of the slice.
        n_images: in it.
        n_groups: in it.
        objective: what it is judged by.
        gain: of the challenger; None where it is not defined.
        interval: of the gain, corrected for the number of slices; None where there is none.
        reason: why there is no interval; empty where there is one.
        holds: False where the whole interval lies below the tolerance.
    """

    column: str
    value: str
    n_images: int
    n_groups: int
    objective: str
    gain: float | None
    interval: tuple[float, float] | None
    reason: str
    holds: bool

    def to_json(self) -> dict[str, Any]:
        """Return the entry of a decision's evidence."""
        interval = None if self.interval is None else list(self.interval)
        return asdict(self) | {"interval": interval}


def certified_risk(
    challenger: Policy, champion: Policy | None, guarantees: Sequence[Guarantee]
) -> Guard:
    """Check that the certified risk is not looser, and that VAL_TEST does not contradict it.

    Args:
        challenger: policy of the challenger.
        champion: policy of the champion; None for the first one.
        guarantees: of the challenger, as in eval_report.json; empty where they were not measured.
    """
    name = "certified risk"
    if isinstance(champion, SelectivePolicy):
        problem = _looser(challenger, champion)
        if problem:
            return Guard(name, False, problem)

    if not isinstance(challenger, SelectivePolicy):
        subject = "the policy certifies no" if champion is None else "neither policy certifies a"
        return Guard(name, True, f"{subject} risk")

    promised = f"{challenger.risk} at most {challenger.alpha:g}, delta {challenger.delta:g}"
    for guarantee in guarantees:
        observed = guarantee.observed
        if observed.interval_95 is not None and observed.interval_95[0] > guarantee.alpha:
            low, high = observed.interval_95
            return Guard(
                name,
                False,
                f"certified is {promised}, VAL_TEST shows {observed.value:.4f} ({low:.4f} to"
                f" {high:.4f})",
            )

    return Guard(name, True, promised)


def _looser(challenger: Policy, champion: SelectivePolicy) -> str:
    """Return how the challenger promises less than the champion; empty where it does not."""
    promised = f"{champion.risk} at most {champion.alpha:g}, delta {champion.delta:g}"
    if not isinstance(challenger, SelectivePolicy):
        return f"the champion certifies {promised}, the challenger nothing"

    same_unit = challenger.max_group_images == champion.max_group_images
    if challenger.risk != champion.risk or not same_unit:
        return (
            f"the champion certifies {promised} (max_group_images {champion.max_group_images}), the"
            f" challenger {challenger.risk} (max_group_images {challenger.max_group_images}):"
            " another risk"
        )
    if challenger.alpha > champion.alpha or challenger.delta > champion.delta:
        return (
            f"the champion certifies {promised}, the challenger only at most"
            f" {challenger.alpha:g}, delta {challenger.delta:g}"
        )
    return ""


def calibration(config: PromoteConfig, challenger: Predictions, champion: Predictions) -> Guard:
    """Check that the calibration error is not larger beyond the interval of the difference."""
    name = "calibration"
    member = membership(challenger.groups, len(challenger.groups))
    ours, theirs = _calibration_error(challenger), _calibration_error(champion)
    found = paired_difference(ours, theirs, member, config.n_bootstrap, config.seed)

    errors = (
        f"ECE {float(np.asarray(ours(None))):.4f} against {float(np.asarray(theirs(None))):.4f}"
    )
    if found.interval is None:
        return Guard(name, True, f"{errors}, no interval of the difference")

    low, high = found.interval
    worse = low > 0
    verdict = "worse" if worse else "not shown to be worse"
    return Guard(
        name, not worse, f"{errors}, difference {low:+.4f} to {high:+.4f} (95 %): {verdict}"
    )


def _calibration_error(predictions: Predictions) -> Statistic:
    if predictions.margin is not None:
        return lambda w: calibration_error.ece_positive_class(
            predictions.is_positive, predictions.probability, weights=w
        )
    return lambda w: calibration_error.ece_classwise(
        predictions.truth, predictions.probabilities, weights=w
    )


def compare_slices(
    config: PromoteConfig,
    objective: Objective,
    challenger: Predictions,
    champion: Predictions,
    slices: Sequence[Slice],
) -> list[SliceResult]:
    """Compare both models on every slice, the worst one first."""

    def judged_by(rows: Integers) -> Objective:
        return of_slice(objective, challenger.truth[rows])

    estimates = compare_models(
        slices,
        lambda rows: judged_by(rows).score_of(challenger, rows),
        lambda rows: judged_by(rows).score_of(champion, rows),
        challenger.groups,
        n_replicates=config.n_bootstrap,
        seed=config.seed,
    )
    found = [
        _slice_result(config, item, judged_by(item.rows), estimate)
        for item, estimate in zip(slices, estimates, strict=True)
    ]
    return sorted(
        found, key=lambda result: (result.holds, np.inf if result.gain is None else result.gain)
    )


def _slice_result(
    config: PromoteConfig, item: Slice, objective: Objective, estimate: SliceEstimate
) -> SliceResult:
    interval = estimate.interval
    return SliceResult(
        column=item.column,
        value=item.value,
        n_images=len(item.rows),
        n_groups=item.n_groups,
        objective=objective.name,
        gain=estimate.value,
        interval=interval,
        reason=estimate.reason,
        holds=interval is None or interval[1] >= -config.slice_tolerance,
    )


def slices_guard(config: PromoteConfig, results: Sequence[SliceResult]) -> Guard:
    """Return the guard that no slice is worse by more than the tolerance."""
    name, tolerance = "slices", config.slice_tolerance
    tested = [result for result in results if result.interval is not None]
    worse = [result for result in results if not result.holds]
    if not tested:
        found = f"{len(results)} slices, none with an interval" if results else "no slices"
        return Guard(name, True, f"{found}: nothing is shown to be worse")
    if not worse:
        few = len(results) - len(tested)
        return Guard(
            name,
            True,
            f"none of {len(tested)} slices is shown to be worse by more than {tolerance:g}"
            + (f"; {few} without an interval" if few else ""),
        )

    listed = ", ".join(
        f"{result.column}={result.value} ({result.gain:+.4f})" for result in worse[:_MOST_NAMED]
    )
    return Guard(
        name,
        False,
        f"{len(worse)} of {len(tested)} slices worse by more than {tolerance:g}: {listed}",
    )


def forms(challenger: Bundle, champion: Bundle) -> Guard:
    """Check that the challenger has each form of the model that the champion has.

    A server that follows the champion serves one form, and none of a bundle without it.
    """
    name = "forms"
    lacking = [form for form in champion.forms if form not in challenger.forms]
    if not lacking:
        found = ", ".join(champion.forms) or "no form beside transformers"
        return Guard(name, True, f"the champion has {found}, and so has the challenger")

    (form, *_) = lacking
    why = challenger.refused_formats.get(form) or f"export it with {form} in formats"
    return Guard(
        name, False, f"the champion has {' and '.join(lacking)}, the challenger has not: {why}"
    )


def latency(measured_ms: float, budget_ms: float) -> Guard:
    """Check the median time of an answer."""
    verdict = "within" if measured_ms <= budget_ms else "above"
    return Guard(
        "latency",
        measured_ms <= budget_ms,
        f"{measured_ms:.1f} ms an image, {verdict} the budget of {budget_ms:g} ms",
    )
