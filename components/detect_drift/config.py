"""Options of the comparison of new images with a bundle's drift reference."""

import math
from dataclasses import dataclass
from typing import Any

from components.shared.contracts.config import adjusted, option
from components.shared.contracts.options import NewImagesConfig, NewImagesForm, SeedConfig


@dataclass(frozen=True, kw_only=True)
class DetectDriftConfig(NewImagesConfig):
    """What is compared, and how often a comparison may alarm without drift."""

    reference: str = option(
        "champion",
        "Bundle with the drift reference: a folder, s3://bucket/prefix of one, the first digits of"
        " its digest in the registry, or champion.",
    )
    unit: str = option(
        "near_duplicates",
        "What counts once: near_duplicates, sets of images of one scene; folder, all images of a"
        " folder and their near-duplicates, where a folder is a drive or a place.",
        choices=("near_duplicates", "folder"),
    )
    false_alarm_rate: float = option(
        0.01,
        "Probability that the test alarms without drift; of nightly tests at 0.01 one in a hundred"
        " nights.",
        gt=0,
        lt=0.5,
    )
    n_permutations: int = option(
        1999, "Permutations of groups; p-values are multiples of 1 / (n + 1).", ge=99, le=99_999
    )
    max_images: int = option(
        5000, "Most images that are read, drawn from all.", ge=16, le=1_000_000
    )
    max_groups: int = option(
        500, "Most groups of new images that are compared, by one image each.", ge=16, le=10_000
    )
    n_shown: int = option(
        12, "Number of new images in the report, the least like the reference.", ge=0, le=200
    )
    seed: int = adjusted(
        SeedConfig, "seed", help="Seed of the choice of images, of folds and of permutations."
    )

    def check(self) -> list[str]:
        """Refuse a rate that no p-value of so few permutations can reach."""
        problems = super().check()
        needed = math.ceil(1 / self.false_alarm_rate) - 1
        if self.n_permutations < needed:
            problems.append(
                f"n_permutations={self.n_permutations} must be >= {needed} for"
                f" false_alarm_rate={self.false_alarm_rate:g}"
            )
        return problems


@dataclass(frozen=True, kw_only=True)
class DriftForm(NewImagesForm):
    """Parameters of a run of the pipeline `drift`."""

    STEP = DetectDriftConfig

    reference: str = adjusted(DetectDriftConfig, "reference")
    options: dict[str, Any] = adjusted(
        NewImagesForm,
        "options",
        help="Further options of detect_drift by name, such as {false_alarm_rate: 0.05}.",
    )
