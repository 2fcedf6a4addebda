"""Options of the search over heads."""

from dataclasses import dataclass

from components.shared.contracts.adaptations import FROZEN
from components.shared.contracts.config import adjusted
from components.shared.training.search.config import SearchConfig


@dataclass(frozen=True, kw_only=True)
class TuneHeadConfig(SearchConfig):
    """The search over heads on the features of a frozen backbone."""

    n_trials: int = adjusted(SearchConfig, "n_trials", default=200)

    def check(self) -> list[str]:
        """Refuse trainings that do not learn from stored features."""
        problems = super().check()
        if not problems and self.base().mode != FROZEN:
            problems.append(
                f"mode={self.base().mode!r} trains the backbone; use mode=frozen, or the pipeline"
                " tune-training"
            )
        return problems
