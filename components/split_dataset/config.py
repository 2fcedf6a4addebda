"""Options of the split: fractions, lineage, limits, and held-out values."""

from dataclasses import dataclass

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import SeedConfig
from components.shared.data.lineage import name_problem
from components.shared.data.splits import SPLITS


@dataclass(frozen=True, kw_only=True)
class SplitConfig(SeedConfig):
    """Options of the split."""

    train_fraction: float = option(0.7, "Fraction of TRAIN.", gt=0, lt=1)
    select_fraction: float = option(0.1, "Fraction of VAL_SELECT (model selection).", gt=0, lt=1)
    calib_fraction: float = option(0.1, "Fraction of VAL_CALIB (policy fitting).", gt=0, lt=1)
    test_fraction: float = option(0.1, "Fraction of VAL_TEST (final evaluation).", gt=0, lt=1)
    lineage: str = option(
        "",
        "Record whose groups keep their split; another name starts anew. Empty: a name from the"
        " source, the fractions, and the options of held-out values, salt and grouping.",
    )
    salt: str = option(
        "",
        "Assign new groups by the hash of this salt and the group's name alone, without regard to"
        " class; empty: stratified by class, with the best of n_salts.",
    )
    n_salts: int = option(
        64, "Candidates among which the best balanced assignment is chosen.", ge=1, le=4096
    )
    min_per_class: int = option(
        5, "Fewest samples of every class in every split.", ge=1, le=1_000_000
    )
    min_groups_per_class: int = option(
        2,
        "Fewest groups of every class in VAL_CALIB, where calibrators are cross-fitted; every"
        " other split needs one.",
        ge=1,
        le=1_000_000,
    )
    holdout_column: str = option(
        "", "Column whose values decide VAL_TEST, e.g. recording_day; empty: drawn."
    )
    holdout_values: tuple[str, ...] = option((), "Values of holdout_column that form VAL_TEST.")
    seed: int = adjusted(SeedConfig, "seed", help="Seed of the candidates for the salt.")
    lineage_request: str = option(
        "", "Digest of the data and of the options of ingest and split; set by the pipeline."
    )
    lineage_previous: str = option(
        "", "Digest of the recorded splits to start from; set by the pipeline."
    )

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

        if problem := name_problem(self.lineage):
            problems.append(problem)

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
