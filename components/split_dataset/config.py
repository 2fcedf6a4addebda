"""Options of the split: fractions, salt, limits, and held-out values."""

from dataclasses import dataclass

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import SeedConfig
from components.shared.data.splits import SPLITS


@dataclass(frozen=True, kw_only=True)
class SplitConfig(SeedConfig):
    """Options of the split."""

    train_fraction: float = option(0.7, "Fraction of TRAIN.", gt=0, lt=1)
    select_fraction: float = option(0.1, "Fraction of VAL_SELECT (model selection).", gt=0, lt=1)
    calib_fraction: float = option(0.1, "Fraction of VAL_CALIB (policy fitting).", gt=0, lt=1)
    test_fraction: float = option(0.1, "Fraction of VAL_TEST (final evaluation).", gt=0, lt=1)
    salt: str = option(
        "", "Salt of the group hash, to repeat an earlier assignment; empty: the best of n_salts."
    )
    n_salts: int = option(
        64, "Candidates among which the best balanced salt is chosen.", ge=1, le=4096
    )
    min_per_class: int = option(5, "Fewest samples of every class in every split.", ge=1)
    holdout_column: str = option(
        "", "Column whose values decide VAL_TEST, e.g. recording_day; empty: by hash."
    )
    holdout_values: tuple[str, ...] = option((), "Values of holdout_column that form VAL_TEST.")
    seed: int = adjusted(SeedConfig, "seed", help="Seed of the candidates for the salt.")

    def check(self) -> list[str]:
        """The fractions add up to 1; a held-out column comes with values."""
        problems = []
        total = (
            self.train_fraction + self.select_fraction + self.calib_fraction + self.test_fraction
        )
        if abs(total - 1) > 1e-6:
            problems.append(
                f"train_fraction + select_fraction + calib_fraction + test_fraction = {total:.6g},"
                " must be 1"
            )

        if bool(self.holdout_column) != bool(self.holdout_values):
            problems.append("holdout_column and holdout_values must be given together")

        return problems

    @property
    def fractions(self) -> dict[str, float]:
        """Fraction of each split."""
        values = (
            self.train_fraction,
            self.select_fraction,
            self.calib_fraction,
            self.test_fraction,
        )
        return dict(zip(SPLITS, values, strict=True))
