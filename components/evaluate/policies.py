"""Which policies were fitted, and what does each say about the same images of VAL_TEST?"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from components.evaluate.config import EvaluateConfig
from components.evaluate.report.early_exit_report import EarlyExitResult, measure_early_exit
from components.evaluate.report.guarantees import Guarantee, PolicyComparison, compare_to_confidence
from components.evaluate.report.report import PolicyResult
from components.evaluate.report.robustness import Robustness, measure_robustness
from components.evaluate.report.scorecard import Predictions, measure
from components.shared.contracts.artifacts import Manifest
from components.shared.contracts.errors import ArtifactError
from components.shared.policies.early_exit import EarlyExit, read_early_exit
from components.shared.policies.logits import Logits, read_logits
from components.shared.policies.policy import Infeasible, Policy, SelectivePolicy
from components.shared.policies.policy_artifact import (
    read_distilled_policy,
    read_policy_or_infeasible,
)
from components.shared.stats.risk_coverage import risk_band

_BAND_COVERAGES = np.linspace(0.05, 1, 39)
_MAX_BAND_REPLICATES = 500  # a band is drawn, not tested


@dataclass(frozen=True)
class FittedPolicies:
    """By kind: logits and policy where there is one, and what was infeasible."""

    fitted: dict[str, tuple[Logits, Policy]]
    infeasible: dict[str, Infeasible]
    early_exits: dict[str, EarlyExit] = field(default_factory=dict)
    students: list[tuple[Logits, Policy]] = field(default_factory=list)


@dataclass(frozen=True)
class PolicyResults:
    """Results by kind, the bundled one first; what each promised; and how a gate ranks against
    confidence.
    """

    results: dict[str, PolicyResult]
    promises: tuple[Guarantee, ...]
    comparisons: tuple[PolicyComparison, ...]
    early_exits: tuple[EarlyExitResult, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    students: tuple[PolicyResult, ...] = ()

    @property
    def shown(self) -> PolicyResult:
        """The result of the policy that is bundled."""
        return next(iter(self.results.values()))


def read_candidates(
    paths: Mapping[str, Path | None], val_test_logits: Path, gate_test_logits: Path | None
) -> tuple[FittedPolicies, dict[str, Manifest]]:
    """Policies with the logits they decide on, and the manifests of all inputs.

    Raises ArtifactError where a policy is of another kind than its input's name says, or where the
    two logits artifacts are not about the same samples.
    """
    logits, manifest = read_logits(val_test_logits, "VAL_TEST")
    inputs, of_gate = {"val_test_logits": manifest}, logits
    if gate_test_logits is not None:
        of_gate, inputs["gate_test_logits"] = read_logits(gate_test_logits, "VAL_TEST")
        if of_gate.sample_ids != logits.sample_ids:
            raise ArtifactError(
                "val_test_logits and gate_test_logits hold different samples; take both from"
                " one run"
            )
    candidates = FittedPolicies({}, {})
    for kind, path in paths.items():
        if path is None:
            continue
        found, inputs[f"{kind}_policy"] = read_policy_or_infeasible(path)
        if found.kind != kind:
            raise ArtifactError(f"{path}: holds a policy of kind {found.kind!r}, expected {kind!r}")
        if isinstance(found, Infeasible):
            candidates.infeasible[kind] = found
        else:
            candidates.fitted[kind] = (of_gate if kind == "gate" else logits, found)
            rule, alone = read_distilled_policy(path), logits.distilled
            if rule is not None and alone is not None:
                candidates.students.append((replace(logits, logits=alone), rule))
            early_exit = read_early_exit(path)
            if early_exit is not None:
                candidates.early_exits[kind] = early_exit
    return candidates, inputs


def evaluate_policies(config: EvaluateConfig, candidates: FittedPolicies) -> PolicyResults:
    """Metrics of all policies on the same replicates. Raises ArtifactError where the one to be
    bundled is missing.
    """
    if config.policy not in candidates.fitted:
        reason = candidates.infeasible.get(config.policy)
        why = f"its target is infeasible: {reason.reason}" if reason else "no such policy was given"
        raise ArtifactError(f"policy={config.policy!r} cannot be evaluated, {why}")
    kinds = [config.policy, *(kind for kind in candidates.fitted if kind != config.policy)]
    results = {kind: _result(config, *candidates.fitted[kind]) for kind in kinds}
    promises = [
        Guarantee.of(results[kind].policy, results[kind].metrics)  # type: ignore[arg-type]
        for kind in kinds
        if isinstance(results[kind].policy, SelectivePolicy)
    ]
    promises += [Guarantee.of(found, {}) for found in candidates.infeasible.values()]
    # A softmax or SCRC policy ranks by the model's confidence itself.
    comparisons = [
        compare_to_confidence(
            kind,
            results[kind].predictions,
            results[kind].policy.threshold_margin,
            n_replicates=config.n_bootstrap,
            seed=config.seed,
        )
        for kind in kinds
        if kind == "gate"
    ]
    if len(kinds) > 1:
        results = {
            kind: replace(result, band=_band(config, result.predictions))
            for kind, result in results.items()
        }
    exits = [
        measure_early_exit(
            kind,
            *candidates.fitted[kind],
            candidates.early_exits[kind],
            config.n_bootstrap,
            config.seed,
        )
        for kind in kinds
        if kind in candidates.early_exits
    ]
    measured = [
        measure_robustness(kind, *candidates.fitted[kind], config.n_bootstrap, config.seed)
        for kind in kinds
    ]
    robustness = tuple(result for result in measured if result is not None)
    students = tuple(_result(config, *pair) for pair in candidates.students)
    return PolicyResults(
        results, tuple(promises), tuple(comparisons), tuple(exits), robustness, students
    )


def predict(logits: Logits, rule: Policy) -> Predictions:
    """What a policy says about samples."""
    return Predictions(
        truth=np.asarray(logits.labels == rule.positive),
        decision=rule.decision(logits.logits),
        margin=rule.margin(logits.logits),
        confidence=rule.confidence(logits.logits, logits.gate),
        groups=logits.groups,
        answered=rule.answers(logits.logits, logits.gate),
        both=rule.both(logits.logits),
    )


def _result(config: EvaluateConfig, logits: Logits, rule: Policy) -> PolicyResult:
    predictions = predict(logits, rule)
    values = measure(
        predictions, targets=config.targets, n_replicates=config.n_bootstrap, seed=config.seed
    )
    return PolicyResult(rule, predictions, values)


def _band(config: EvaluateConfig, p: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n_replicates = min(config.n_bootstrap, _MAX_BAND_REPLICATES)
    low, high = risk_band(
        p.confidence, p.error, p.groups, _BAND_COVERAGES, n_replicates, config.seed
    )
    return _BAND_COVERAGES, low, high
