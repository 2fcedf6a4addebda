"""What a run that promotes reads from the registry of bundles before any work is done.

The champion's digest is an option of the promotion: another champion is another configuration, so
that the promotion runs again and nothing else does. The lineage's salt and fractions are the
registry's, so that the options of a later run never move a group of an earlier one.
"""

import dataclasses
import re

from components.configure.lineage import lineage_name
from components.ingest_dataset.config import IngestConfig
from components.promote_bundle.config import NOT_WORSE, PromoteConfig
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.data.lineage import Lineage
from components.shared.data.splits import SPLITS
from components.shared.storage.registry import BundleRegistry, SplitLineage
from components.split_dataset.config import SplitConfig

# Of a stratified assignment: seed and number of the candidate. It assigns no later group.
_CANDIDATE = re.compile(r"\d+-\d+")
_OPTIONS = {
    "train_fraction": "TRAIN",
    "select_fraction": "VAL_SELECT",
    "calib_fraction": "VAL_CALIB",
    "test_fraction": "VAL_TEST",
}


def with_champion(promotion: PromoteConfig, registry: BundleRegistry) -> PromoteConfig:
    """Return the promotion's configuration with the champion of now.

    Raises:
        ConfigError: there is none, and a challenger is asked to be no worse than it.
    """
    champion = registry.champion()
    if champion is None and promotion.promotion == NOT_WORSE:
        raise ConfigError(
            f"promotion={NOT_WORSE}: {registry.uri} has no champion to compare with; leave the"
            " option out, or promote a bundle by hand"
        )
    return dataclasses.replace(promotion, champion=champion.digest if champion else "")


def with_registered_lineage(
    split: SplitConfig, ingest: IngestConfig, registry: BundleRegistry
) -> SplitConfig:
    """Return the split's configuration with the lineage's salt and fractions of the registry.

    Args:
        split: the options of the split. Fractions that are the defaults give way.
        ingest: the options of ingest, from which an unnamed lineage has its name.
        registry: where the lineages of registered bundles are; one of none is left as it is.

    Raises:
        ConfigError: the splits are not recorded, or the record of a lineage that the registry knows
            is not there, or other fractions or another salt are asked for.
    """
    name = split.lineage or lineage_name(split, ingest)
    lineage = Lineage.open(name)
    if lineage is None:
        raise ConfigError(
            f"{Variable.LINEAGES} is not set: without a record of the splits a champion cannot be"
            " compared, since images that it was trained on may be in a later VAL_TEST"
        )

    known = registry.lineage(name)
    if known is None:
        return split
    if not lineage.entries():
        raise ConfigError(
            f"lineage {name!r} has bundles in {registry.uri} and no record in"
            f" {Variable.LINEAGES}: a new split would move groups that they were trained on;"
            " restore the record, or name another lineage"
        )

    _require_same(name, split, known)
    fractions = {option: known.fractions[part] for option, part in _OPTIONS.items()}
    salt = split.salt or ("" if _CANDIDATE.fullmatch(known.salt) else known.salt)
    return SplitConfig.from_mapping({**split.to_json(), **fractions, "lineage": name, "salt": salt})


def _require_same(name: str, split: SplitConfig, known: SplitLineage) -> None:
    """Raise ConfigError where options contradict the registry's lineage."""
    problems = []
    if split.fractions not in (SplitConfig().fractions, known.fractions):
        fractions = ", ".join(f"{part} {known.fractions[part]:g}" for part in SPLITS)
        problems.append(f"its fractions are {fractions}")
    if split.salt not in ("", known.salt):
        problems.append(f"its salt is {known.salt!r}, not {split.salt!r}")
    if problems:
        raise ConfigError(
            f"lineage {name!r} of the registry: {' and '.join(problems)}; leave the options out, or"
            " name another lineage"
        )
