"""How did the run end?"""

from dataclasses import dataclass

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class OutcomeConfig(Config):
    """What KFP says about the steps that the exit handler waited for."""

    state: str = option("", "SUCCEEDED, FAILED or CANCELLED.")
    run: str = option("", "Resource name of the run.")
    error_code: int = option(0, "KFP's code of the first error; 0: none.")
    error_message: str = option("", "KFP's message of the first error; empty: none.")
