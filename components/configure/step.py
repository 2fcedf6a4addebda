"""The first step: resolve and validate every option, and fingerprint the data and the backbone.

Never cached: its configurations hold the fingerprints, so that a change of the data reaches the
cache keys, and a wrong option ends the run within seconds, before a pod with a GPU is requested.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from components.configure.config import ConfigureConfig
from components.configure.fingerprint import fingerprint
from components.configure.phases import PHASES
from components.configure.resolve import resolve
from components.import_backbone.config import ImportBackboneConfig
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.step import main

PhaseConfigs = NamedTuple("PhaseConfigs", [(phase, dict[str, Any]) for phase in PHASES])  # type: ignore[misc]


def run(config: ConfigureConfig) -> PhaseConfigs:
    """Return each phase's configuration as JSON-compatible values; print recipe and fingerprints.

    Raises:
        ConfigError: An option is invalid, or a source is not set.
        DataError: A source does not exist or has no objects.
    """
    configs = configured(config)
    by_phase = configs._asdict()
    data = by_phase["ingest_dataset"]["source_fingerprint"]
    backbone = by_phase["import_backbone"]["backbone_fingerprint"]
    print(f"recipe {config.recipe}, data {data[:16]}, backbone {backbone[:64]}")
    return configs


def configured(config: ConfigureConfig) -> PhaseConfigs:
    """Return each phase's configuration as JSON-compatible values; raises as `run`."""
    phases = resolve(config)
    ingest = cast(IngestConfig, phases["ingest_dataset"])
    backbone = cast(ImportBackboneConfig, phases["import_backbone"])

    found = fingerprint(config.data, config.backbone, ingest.extra_sources)
    phases["ingest_dataset"] = dataclasses.replace(ingest, source_fingerprint=found.data)
    phases["import_backbone"] = dataclasses.replace(backbone, backbone_fingerprint=found.backbone)
    values = {phase: phases[phase].to_json() for phase in PHASES}

    if config.modes:
        # Each compared training has a mode of its own, and resolves what depends on it: one more
        # mode, or another order, must not train the others again.
        values["train_baseline"] = phases["train_baseline"].to_json(resolved=False)
        del values["train_baseline"]["mode"]

    return PhaseConfigs(**{phase: _without_null(phase, values[phase]) for phase in PHASES})


def _without_null(phase: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with the option's word ("auto", "none") for None.

    KFP's local runner refuses null in a parameter; a configuration reads the word as None.
    """
    declared = {field.name: field.metadata for field in dataclasses.fields(PHASES[phase])}
    return {
        name: declared[name]["unset"] if value is None else value for name, value in values.items()
    }


if __name__ == "__main__":
    main(run, ConfigureConfig)
