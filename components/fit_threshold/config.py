"""Options of fit_threshold: the objective of the threshold, and its limits."""

from dataclasses import dataclass

from components.shared.policies.fitting.config import ThresholdConfig


@dataclass(frozen=True, kw_only=True)
class FitThresholdConfig(ThresholdConfig):
    """Options of the threshold."""
