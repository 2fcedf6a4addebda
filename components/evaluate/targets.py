"""Operating points of the evaluation; apart from its metrics, because `configure` imports them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Targets:
    """Operating points at which metrics are reported, each in (0, 1]."""

    precision: float
    risk: float
    coverage: float = 0.8
