"""Options of policies: which one is bundled, its guarantee, and the samples that certify it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.shared.contracts.config import Config, adjusted, option
from components.shared.contracts.options import (
    RiskLevelConfig,
    SeedConfig,
    TaskConfig,
)
from components.shared.contracts.outcomes import MULTICLASS, NEEDS_BINARY
from components.shared.policies.policy import KINDS, RISKS
from components.shared.stats.multiple_testing import METHODS


@dataclass(frozen=True, kw_only=True)
class BundledPolicyConfig(Config):
    """The policy of the bundle."""

    policy: str = option(
        "softmax",
        "Policy of the bundle: softmax has no guarantee; gate and scrc defer, with one. All"
        " are evaluated.",
        choices=KINDS,
    )


@dataclass(frozen=True, kw_only=True)
class AttemptConfig(Config):
    """Which attempt at its guarantee a policy is."""

    # Names of the options that state the guarantee.
    GUARANTEE = frozenset[str]()

    attempt: int = option(
        0,
        "Number of this configuration among those that asked for the same guarantee on the same"
        " data; 0: not recorded; set by the pipeline.",
        ge=0,
        le=1_000_000,
    )

    def guarantee(self) -> dict[str, Any]:
        """Return what is guaranteed, as options; empty where nothing is."""
        return {name: value for name, value in self.to_json().items() if name in self.GUARANTEE}


@dataclass(frozen=True, kw_only=True)
class SelectiveConfig(BundledPolicyConfig, RiskLevelConfig, TaskConfig, SeedConfig, AttemptConfig):
    """Options of the policies with a guarantee."""

    GUARANTEE = frozenset({"risk", "alpha", "delta", "min_coverage", "max_group_images"})

    risk: str = option(
        "error",
        "Risk that is limited among answered images: error rate or false negative rate.",
        choices=RISKS,
    )
    delta: float = option(
        0.1,
        "Probability with which the guarantee on risk may fail; the same for coverage.",
        gt=0,
        lt=1,
    )
    min_coverage: float = option(
        0.0,
        "Least coverage, by its lower bound; above 0, risk and coverage have delta / 2 each.",
        ge=0,
        lt=1,
    )
    multiple_testing: str = option(
        "fixed_sequence",
        "Correction for testing several thresholds.",
        choices=tuple(METHODS),
    )
    max_group_images: int | None = option(
        None,
        "Certify the risk of a random image, if no group (place, drive or video) ever has more"
        " images than this; none: of a random image of a random group, which needs no limit.",
        ge=1,
        le=1_000_000_000,
        unset="none",
    )
    tuning_fraction: float = option(
        0.3,
        "Fraction of VAL_CALIB's groups that fit calibrator and gate scale and propose thresholds.",
        gt=0,
        lt=1,
    )
    seed: int = adjusted(
        SeedConfig, "seed", help="Seed of the selection of tuning groups and of cross-fitting."
    )

    def check(self) -> list[str]:
        """A guarantee per image has no bound of the coverage."""
        problems = super().check()
        if self.max_group_images is not None and self.min_coverage > 0:
            problems.append(
                f"max_group_images={self.max_group_images} certifies a risk per image, but no"
                f" coverage: set min_coverage=0, got {self.min_coverage:g}"
            )
        return problems

    def task_problems(self, task: str, class_names: Sequence[str] | None = None) -> list[str]:
        """Return the options that need a positive class, where there is none."""
        problems = super().task_problems(task, class_names)
        if self.risk == "fnr" and task == MULTICLASS:
            problems.append(f"risk='fnr' {NEEDS_BINARY}")
        return problems

    @property
    def risk_delta(self) -> float:
        """The part of delta that the guarantee on risk uses."""
        return self.delta / 2 if self.min_coverage > 0 else self.delta
