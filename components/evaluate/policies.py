"""Results of all policies on the same images of VAL_TEST, on the same bootstrap replicates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.evaluate.inputs import EvaluationInputs, FittedPolicy, slices_of, stage2_of
from components.evaluate.report.cascade import CascadeReport, Costs, measure_cascade
from components.evaluate.report.early_exit_report import EarlyExitResult, measure_early_exit
from components.evaluate.report.guarantees import (
    Guarantee,
    PolicyComparison,
    compare_to_confidence,
    measure_guarantees,
)
from components.evaluate.report.per_class import measure_classes
from components.evaluate.report.plots import Band
from components.evaluate.report.report import PolicyResult
from components.evaluate.report.robustness import Robustness, measure_robustness
from components.evaluate.report.scorecard import measure
from components.evaluate.report.slices import SliceReport, measure_slice_report
from components.evaluate.stage2 import UNKNOWN, Stage2Logits
from components.shared.contracts.errors import DataError
from components.shared.policies.policy import SelectivePolicy, softmax_policy
from components.shared.policies.predictions import Predictions
from components.shared.stats.miscalibration import calibration_p_value
from components.shared.stats.risk_coverage import risk_band

_BAND_COVERAGES = np.linspace(0.05, 1, 39)
_MAX_BAND_REPLICATES = 500  # a band is drawn, not tested


@dataclass(frozen=True)
class PolicyResults:
    """Results of one evaluation.

    Attributes:
        results: by kind of policy, first the bundled one, unless it is infeasible.
        guarantees: of the policies that defer.
        comparisons: by kind, the ranking of a policy against that of the model's confidence.
        early_exits: of the policies that have one.
        robustness: of the policies whose logits cover corrupted images.
        distilled_head: of the full image alone, where there is one.
        slices: of the result that is shown.
        cascade: of the policies that defer, where there are logits of stage 2.
    """

    results: dict[str, PolicyResult]
    guarantees: tuple[Guarantee, ...]
    comparisons: dict[str, PolicyComparison]
    early_exits: tuple[EarlyExitResult, ...]
    robustness: tuple[Robustness, ...]
    distilled_head: PolicyResult | None
    slices: SliceReport
    cascade: CascadeReport | None

    @property
    def shown(self) -> PolicyResult:
        """The result of the policy that is bundled; of another one where that is infeasible."""
        return next(iter(self.results.values()))


def evaluate_policies(config: EvaluateConfig, inputs: EvaluationInputs) -> PolicyResults:
    """Evaluate all fitted policies, the one to be bundled first; raises as `run`."""
    slices = slices_of(config, inputs)
    stage2 = stage2_of(config, inputs)
    fitted = _bundled_first(config, inputs)
    n_replicates, seed = config.n_bootstrap, config.seed

    results: dict[str, PolicyResult] = {}
    guarantees: list[Guarantee] = []
    early_exits: list[EarlyExitResult] = []
    robustness: list[Robustness] = []

    for kind, entry in fitted.items():
        logits, policy = entry.logits, entry.policy
        result = _evaluate(config, entry, with_band=len(fitted) > 1, in_detail=not results)
        results[kind] = result
        if isinstance(policy, SelectivePolicy):
            guarantees += measure_guarantees(
                policy,
                result.predictions,
                entry.certified,
                attempt=entry.fit.get("attempt", 0),
                targets=config.targets,
                n_replicates=n_replicates,
                seed=seed,
            )

        if entry.early_exit is not None:
            early_exits.append(
                measure_early_exit(kind, logits, policy, entry.early_exit, n_replicates, seed)
            )

        measured = measure_robustness(kind, logits, policy, n_replicates, seed)
        if measured is not None:
            robustness.append(measured)

    # A softmax or SCRC policy ranks by the model's confidence itself.
    comparisons = {}

    if "gate" in results:
        gate, policy = results["gate"], fitted["gate"].policy
        softmax = softmax_policy(policy.outcomes, policy.threshold_margin, policy.calibrator)
        confidence = softmax.confidence(fitted["gate"].logits.logits)
        comparisons["gate"] = compare_to_confidence(
            "gate",
            gate.predictions,
            confidence,
            n_replicates=n_replicates,
            seed=seed,
        )

    head = inputs.distilled_head
    shown = next(iter(results.values()))

    return PolicyResults(
        results=results,
        guarantees=tuple(guarantees),
        comparisons=comparisons,
        early_exits=tuple(early_exits),
        robustness=tuple(robustness),
        distilled_head=None if head is None else _evaluate(config, head),
        slices=measure_slice_report(
            shown.policy.kind,
            shown.predictions,
            slices,
            targets=config.targets,
            n_replicates=n_replicates,
            seed=seed,
        ),
        cascade=None if stage2 is None else _cascade(config, stage2, fitted, results),
    )


def _cascade(
    config: EvaluateConfig,
    stage2: Stage2Logits,
    fitted: Mapping[str, FittedPolicy],
    results: Mapping[str, PolicyResult],
) -> CascadeReport:
    """Return the cascade of each policy that defers; raise DataError where stage 2 lacks a row."""
    costs = Costs(config.stage1_cost, config.stage2_cost)
    found = []

    for kind, result in results.items():
        predictions, logits = result.predictions, fitted[kind].logits
        decisions = stage2.decisions(result.policy, logits.sample_ids)
        missing = np.flatnonzero(~predictions.answered & (decisions == UNKNOWN))
        if len(missing):
            raise DataError(
                f"stage2_logits={config.stage2_logits!r} has no row for {len(missing)} of the"
                f" {int((~predictions.answered).sum())} images that policy {kind} defers, first"
                f" {logits.sample_ids[missing[0]]}; run stage 2 on all images of VAL_TEST"
            )
        if not predictions.answered.all():
            found.append(
                measure_cascade(
                    kind, predictions, decisions, costs, config.n_bootstrap, config.seed
                )
            )

    return CascadeReport(stage2.file, stage2.sha256, costs, tuple(found))


def _bundled_first(config: EvaluateConfig, inputs: EvaluationInputs) -> dict[str, FittedPolicy]:
    """Return the fitted policies, first the one to be bundled where it could be fitted."""
    if config.policy not in inputs.policies:
        return inputs.policies
    return {config.policy: inputs.policies[config.policy]} | inputs.policies


def _evaluate(
    config: EvaluateConfig,
    fitted: FittedPolicy,
    *,
    with_band: bool = False,
    in_detail: bool = False,
) -> PolicyResult:
    predictions = predict(fitted)
    groups, n_replicates, seed = predictions.groups, config.n_bootstrap, config.seed
    return PolicyResult(
        policy=fitted.policy,
        predictions=predictions,
        metrics=measure(predictions, targets=config.targets, n_replicates=n_replicates, seed=seed),
        classes=measure_classes(predictions, n_replicates, seed) if in_detail else (),
        calibration_p_value=calibration_p_value(*predictions.forecast, groups, n_replicates, seed),
        uncalibrated_reason=fitted.uncalibrated_reason,
        band=_band(config, predictions) if with_band else None,
    )


def predict(fitted: FittedPolicy) -> Predictions:
    """Return the predictions of a policy on its logits."""
    logits, policy = fitted.logits, fitted.policy
    truth = logits.truth(policy.outcomes)
    return Predictions.of(policy, truth, logits.groups, logits.logits, logits.gate)


def _band(config: EvaluateConfig, predictions: Predictions) -> Band | None:
    """Return coverages with the lower and upper 95 % bound of the selective risk, each (J,)."""
    ends = risk_band(
        predictions.confidence,
        predictions.error,
        predictions.groups,
        _BAND_COVERAGES,
        min(config.n_bootstrap, _MAX_BAND_REPLICATES),
        config.seed,
    )
    return None if ends is None else (_BAND_COVERAGES, *ends)
