"""The first step: validate every option, fingerprint data and backbone, look up the lineage.

Never cached: its configurations hold the fingerprints, and which recorded splits the run starts
from, so that a change of the data reaches the cache keys. A wrong option ends the run within
seconds, before a pod with a GPU is requested.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from components.configure.attempts import with_attempts
from components.configure.backbone import check_backbone
from components.configure.config import ConfigureConfig
from components.configure.fingerprint import file_fingerprint, fingerprint
from components.configure.lineage import recorded_needs, with_lineage
from components.configure.phases import PHASES
from components.configure.promotion import with_champion, with_registered_lineage
from components.configure.resolve import resolve
from components.evaluate.config import EvaluateConfig
from components.export_bundle.config import ExportConfig
from components.import_backbone.config import ImportBackboneConfig
from components.ingest_dataset.config import IngestConfig
from components.promote_bundle.config import PromoteConfig
from components.shared.contracts.config import Config
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import say
from components.shared.contracts.step import main
from components.shared.serving.signature import TrustedKeys, signing_key
from components.shared.storage.registry import open_registry
from components.split_dataset.config import SplitConfig
from components.train_baseline.config import TrainBaselineConfig

PhaseConfigs = NamedTuple("PhaseConfigs", [(phase, dict[str, Any]) for phase in PHASES])  # type: ignore[misc]


def run(config: ConfigureConfig) -> PhaseConfigs:
    """Return each phase's configuration, as the steps are given it; print recipe and fingerprints.

    The attempts at guarantees are counted, which `configured` does not do.

    Raises:
        ConfigError: An option is invalid, or a source is not set.
        DataError: A source does not exist or has no objects, or the import would refuse the
            backbone.
    """
    configs = PhaseConfigs(**with_attempts(configured(config)._asdict()))
    by_phase = configs._asdict()
    data = by_phase["ingest_dataset"]["source_fingerprint"]
    backbone = by_phase["import_backbone"]["backbone_fingerprint"]
    say(f"recipe {config.recipe}, data {data[:16]}, backbone {backbone[:64]}")

    split = by_phase["split_dataset"]
    for line in recorded_needs(split["lineage"], split["lineage_request"], by_phase):
        say(line)

    return handed_over(by_phase)


def handed_over(configs: Mapping[str, Mapping[str, Any]]) -> PhaseConfigs:
    """Return of each configuration the options that differ from their defaults.

    A back end repeats a step's configuration in the status of six nodes, and the defaults are two
    thirds of it. The code of a step has them: another default is another image, as other code is.

    Args:
        configs: phase -> its options as JSON-compatible values, all of them.
    """
    found = {}
    for phase, config_class in PHASES.items():
        defaults = _without_null(phase, config_class().to_json(resolved=False))
        found[phase] = {
            name: value for name, value in configs[phase].items() if value != defaults[name]
        }
    return PhaseConfigs(**found)


def configured(config: ConfigureConfig) -> PhaseConfigs:
    """Return all options of each phase as JSON-compatible values; raises as `run`."""
    phases = resolve(config)
    ingest = cast(IngestConfig, phases["ingest_dataset"])
    backbone = cast(ImportBackboneConfig, phases["import_backbone"])

    corrections = {"exclude": ingest.exclude, "relabel": ingest.relabel}
    found = fingerprint(config.data, config.backbone, ingest.extra_sources, corrections)
    _check_input_size(phases, check_backbone(config.backbone))
    phases["ingest_dataset"] = dataclasses.replace(ingest, source_fingerprint=found.data)
    phases["import_backbone"] = dataclasses.replace(backbone, backbone_fingerprint=found.backbone)
    if config.promote:
        registry = open_registry()
        phases["promote_bundle"] = with_champion(
            cast(PromoteConfig, phases["promote_bundle"]), registry
        )
        phases["split_dataset"] = with_registered_lineage(
            cast(SplitConfig, phases["split_dataset"]),
            cast(IngestConfig, phases["ingest_dataset"]),
            registry,
        )
    phases["export_bundle"] = _with_trusted_keys(cast(ExportConfig, phases["export_bundle"]))
    _check_views(phases)
    phases["evaluate"] = _with_stage2(cast(EvaluateConfig, phases["evaluate"]))
    phases["split_dataset"] = with_lineage(
        cast(SplitConfig, phases["split_dataset"]), cast(IngestConfig, phases["ingest_dataset"])
    )
    values = {phase: phases[phase].to_json() for phase in PHASES}

    if config.modes:
        # Each compared training has a mode of its own, and resolves what depends on it: one more
        # mode, or another order, must not train the others again.
        values["train_baseline"] = phases["train_baseline"].to_json(resolved=False)
        del values["train_baseline"]["mode"]

    return PhaseConfigs(**{phase: _without_null(phase, values[phase]) for phase in PHASES})


def _with_stage2(evaluation: EvaluateConfig) -> EvaluateConfig:
    """Return the options of the evaluation with the fingerprint of a table of stage 2, if any."""
    if not evaluation.stage2_logits:
        return evaluation
    found = file_fingerprint("stage2_logits", evaluation.stage2_logits)
    return dataclasses.replace(evaluation, stage2_fingerprint=found)


def _with_trusted_keys(export: ExportConfig) -> ExportConfig:
    """Return the options of the export with the digest of the keys, one of which must sign."""
    trusted = TrustedKeys.of()
    if trusted is None and signing_key() is not None:
        raise ConfigError(
            f"{Variable.SIGNING_KEY} is set and {Variable.TRUSTED_KEYS} is not: name the file with"
            " the public half too, or an unsigned bundle of an earlier run could be taken"
        )
    return dataclasses.replace(export, trusted_keys="" if trusted is None else trusted.digest)


def _check_views(phases: Mapping[str, Config]) -> None:
    """Raise ConfigError where the graph of a model of several views is to resize."""
    has_tiles = cast(TrainBaselineConfig, phases["train_baseline"]).tile_grid is not None
    problem = cast(ExportConfig, phases["export_bundle"]).views_problem(has_tiles)
    if problem:
        raise ConfigError(f"export_bundle: {problem}")


def _check_input_size(phases: Mapping[str, Config], patch_size: int | None) -> None:
    """Raise ConfigError where the model cannot see images at the configured size."""
    ingest = cast(IngestConfig, phases["ingest_dataset"])
    training = cast(TrainBaselineConfig, phases["train_baseline"])
    problem = training.input_problem(ingest.image_size, patch_size)
    if problem:
        raise ConfigError(problem)


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
