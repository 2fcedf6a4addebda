"""The lineage of a run: its name, what the run asks for, and the recorded splits it starts from.

A run that asks for what an earlier one asked for starts from what that one started from, so that
the configuration of its split is the same and the step comes from the cache. Any other run starts
from the newest entry.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.config import digest
from components.shared.data.lineage import Lineage
from components.shared.stats.group_needs import interval_need, policy_need
from components.split_dataset.config import SplitConfig

_PARTS = ("train_fraction", "select_fraction", "calib_fraction", "test_fraction")
# Options of the split by which an unnamed lineage is told from others of the same source.
_NAMED_BY = (*_PARTS, "salt", "holdout_column", "holdout_values")


def with_lineage(split: SplitConfig, ingest: IngestConfig) -> SplitConfig:
    """Return the split's configuration with the name, the request and the previous table.

    Args:
        split: the options of the split.
        ingest: the options of ingest, with the fingerprint of the data.

    Raises:
        ArtifactError: the record is damaged.
    """
    named = dataclasses.replace(split, lineage=split.lineage or lineage_name(split, ingest))
    request = digest([ingest.to_json(), named.to_json()])

    lineage = Lineage.open(named.lineage)
    previous = "" if lineage is None else lineage.start(request).previous
    return dataclasses.replace(named, lineage_request=request, lineage_previous=previous)


def lineage_name(split: SplitConfig, ingest: IngestConfig) -> str:
    """Return the name of a lineage that the user does not name.

    It follows from the address of the first source, the fractions, and the options of held-out
    values, salt and grouping: another value of these is another split. It does not follow from the
    seed, the limits and further sources, nor from what the data hold.
    """
    options = split.to_json()
    parts = [ingest.data, *(options[name] for name in _NAMED_BY)]
    parts += [ingest.group_column, ingest.near_duplicate_distance]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", ingest.name).strip("-")[:40] or "source"
    return f"{readable}-{digest(parts)[:8]}"


def recorded_needs(name: str, request: str, configs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what policies and intervals need at this run's options, where the split is recorded.

    Args:
        name: the lineage.
        request: what the run asks for.
        configs: every phase's configuration.
    """
    lineage = Lineage.open(name)
    entry = lineage.start(request).same if lineage is not None else None
    if entry is None:
        return

    n_calib = entry.n_groups["VAL_CALIB"]
    for kind, config_class in (("gate", CalibrateGateConfig), ("scrc", CalibrateScrcConfig)):
        config = config_class.from_mapping(configs[f"calibrate_{kind}"])
        need = policy_need(kind, n_calib, config.tuning_fraction, config.alpha, config.risk_delta)
        yield need.line()

    yield interval_need(entry.n_groups["VAL_TEST"]).line()
