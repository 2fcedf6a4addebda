"""Options of the comparison of adaptations: the candidates, and the metric that selects one."""

from dataclasses import dataclass

from components.shared.contracts.adaptations import MODES
from components.shared.contracts.config import option
from components.shared.contracts.options import (
    BootstrapConfig,
    MonitorConfig,
    TaskConfig,
)


@dataclass(frozen=True, kw_only=True)
class CompareAdaptationsConfig(MonitorConfig, TaskConfig, BootstrapConfig):
    """Options of the comparison of adaptations."""

    modes: tuple[str, ...] = option(
        ("frozen",),
        "Adaptations that are trained side by side. The best on VAL_SELECT is selected; the first"
        " is the one that the others are compared with, and wins ties.",
        choices=MODES,
    )

    def check(self) -> list[str]:
        """At least one mode, without duplicates."""
        if not self.modes or len(set(self.modes)) != len(self.modes):
            return [f"modes={list(self.modes)} must be a non-empty list without duplicates"]
        return []
