"""Options of a search of the classifier's options."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from components.shared.contracts.config import option
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.options import BootstrapConfig, LaunchConfig, StepsLaunchConfig
from components.shared.training.classifier.config import ClassifierConfig

_OF_LAUNCH = frozenset(field.name for field in dataclasses.fields(StepsLaunchConfig))


@dataclass(frozen=True, kw_only=True)
class SearchConfig(LaunchConfig, BootstrapConfig):
    """How many trials there are, and the training that they start from."""

    n_trials: int = option(
        100, "Trainings of the search; the first has the options of the run.", ge=1, le=100_000
    )
    training: dict[str, Any] = option(
        {}, "Options of the training that the trials start from; those of train_baseline."
    )

    def check(self) -> list[str]:
        """Refuse options of a training that are none."""
        try:
            self.base()
        except ConfigError as error:
            return [f"training.{problem}" for problem in error.problems]
        return super().check()

    def base(self) -> ClassifierConfig:
        """Return the options that the trials start from, without those of how they are launched."""
        return ClassifierConfig.from_mapping(
            {name: value for name, value in self.training.items() if name not in _OF_LAUNCH}
        )
