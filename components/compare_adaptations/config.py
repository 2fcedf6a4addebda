"""Options of the comparison of adaptations: which compete, and the metric that decides."""

from dataclasses import dataclass

from components.shared.contracts.adaptations import MODES, MONITOR_HELP, MONITORS
from components.shared.contracts.config import Config, option


@dataclass(frozen=True, kw_only=True)
class CompareAdaptationsConfig(Config):
    """Parameters of the comparison of adaptations."""

    modes: tuple[str, ...] = option(
        ("frozen",),
        "Adaptations to train side by side: frozen, full, adapters. The best on VAL_SELECT goes on;"
        " the first is the one the others are compared with, and wins ties.",
        choices=MODES,
    )
    monitor: str = option("val_select/acc", MONITOR_HELP, choices=MONITORS)
    positive_class: str = option("Roadwork", "The class that P(positive) and the margin refer to.")
    n_bootstrap: int = option(2000, "Bootstrap replicates of every interval.", ge=100, le=100_000)
    seed: int = option(
        0, "Seed of initialisation, batches, augmentation, dropout, salts and resampling.", ge=0
    )

    def check(self) -> list[str]:
        """At least one mode, none twice."""
        if not self.modes or len(set(self.modes)) != len(self.modes):
            return [f"modes={list(self.modes)} must be a non-empty list without duplicates"]
        return []
