"""Which parameters do all training phases share?"""

from dataclasses import dataclass

from components.shared.config import Config, option


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Config):
    """What every training phase lets its user say about checkpoints. It never changes the result."""

    checkpoint_seconds: int = option(300, "Longest time between two checkpoints, in seconds.", ge=1)
    checkpoint_steps: int = option(0, "Most optimiser steps between two checkpoints; 0: only time counts.", ge=0)
    require_durable: bool = option(
        False, "Stop where a checkpoint cannot be stored safely, instead of training on with a warning."
    )
