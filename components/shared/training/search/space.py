"""The search space: options of the classifier that declare a range, and have an effect.

The ranges stand beside the options (`option(..., search=...)`) and nowhere else.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from components.shared.contracts.adaptations import ADAPTERS, FROZEN
from components.shared.contracts.config import Range
from components.shared.contracts.options import AugmentationConfig
from components.shared.training.classifier.config import ClassifierConfig

_BELOW = 0.99  # of an end that an option excludes
Space = dict[str, BaseDistribution]


def space_of(base: ClassifierConfig) -> Space:
    """Return the values that a search tries, by option, in the order of the declaration.

    An option that `base` switches off (none, or 0 on a logarithmic scale) stays off. A value of
    `base` outside of its range extends the range.
    """
    hints = typing.get_type_hints(type(base))
    space: Space = {}
    for field in dataclasses.fields(base):
        search, value = field.metadata["search"], getattr(base, field.name)
        if not search or value is None or not _has_effect(base, field.name):
            continue
        if not isinstance(search, Range):
            space[field.name] = CategoricalDistribution(field.metadata["choices"])
        elif value > 0 or not search.log:
            whole = hints[field.name] is int
            space[field.name] = _numbers(search, value, field.metadata, whole=whole)

    return space


def with_values(base: ClassifierConfig, values: Mapping[str, Any]) -> ClassifierConfig:
    """Return `base` with other values; what is automatic follows from these."""
    return type(base).from_mapping(base.to_json(resolved=False) | dict(values))


def _has_effect(base: ClassifierConfig, name: str) -> bool:
    """Return whether a training with the options of `base` depends on an option."""
    if name in AugmentationConfig.__dataclass_fields__:
        return base.mode != FROZEN  # the features that heads are trained on exist already
    if name.startswith("adapter_"):
        return base.mode in ADAPTERS
    if name.startswith("aggregation"):
        return base.tile_grid is not None
    return True


def _numbers(
    search: Range, value: float, metadata: Mapping[str, Any], *, whole: bool
) -> BaseDistribution:
    factor = value if search.relative else 1
    low, high = min(search.low * factor, value), search.high * factor
    if metadata["lt"] is not None:
        high = min(high, _BELOW * metadata["lt"])
    high = max(high, value)
    if whole:
        return IntDistribution(int(low), int(high), log=search.log)
    return FloatDistribution(low, high, log=search.log)
