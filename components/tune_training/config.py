"""Options of the search over trainings."""

from dataclasses import dataclass
from typing import Any

from components.shared.contracts.adaptations import FROZEN
from components.shared.contracts.config import adjusted
from components.shared.training.search.config import SearchConfig


@dataclass(frozen=True, kw_only=True)
class TuneTrainingConfig(SearchConfig):
    """The search over trainings of backbone and head."""

    n_trials: int = adjusted(SearchConfig, "n_trials", default=12)
    training: dict[str, Any] = adjusted(SearchConfig, "training", default={"mode": "full"})

    def check(self) -> list[str]:
        """Refuse the mode whose trainings need no images."""
        problems = super().check()
        if not problems and self.base().mode == FROZEN:
            problems.append(
                "mode='frozen' trains the head alone; use the pipeline tune, or another mode"
            )
        return problems
