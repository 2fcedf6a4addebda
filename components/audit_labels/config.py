"""Options of the label audit."""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.contracts.options import SeedConfig


@dataclass(frozen=True, kw_only=True)
class AuditLabelsConfig(SeedConfig):
    """Options of the label audit."""

    n_folds: int = option(
        5,
        "Folds of the cross-fitting, each of whole groups; fewer where a class has fewer groups.",
        ge=2,
        le=20,
    )
    n_shown: int = option(
        100, "Suspects with a thumbnail in the report, worst first.", ge=1, le=1000
    )
