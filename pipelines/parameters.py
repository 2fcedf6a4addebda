"""Which parameters has the pipeline, and are the user's values valid?

The phases' configuration classes are the single source: fields of the same name are one pipeline parameter, so the
KFP form, the command line and the code cannot drift.
"""

import dataclasses
import inspect
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.calibrate_gate.config import CalibrateGateConfig
from components.calibrate_scrc.config import CalibrateScrcConfig
from components.compare_adaptations.config import CompareAdaptationsConfig
from components.compare_calibrators.config import CompareCalibratorsConfig
from components.evaluate.config import EvaluateConfig
from components.export_bundle.config import ExportConfig
from components.fingerprint_source.config import FingerprintConfig
from components.fit_threshold.config import FitThresholdConfig
from components.import_backbone.config import ImportBackboneConfig
from components.ingest_dataset.config import IngestConfig
from components.predict_logits.config import PredictLogitsConfig
from components.pretrain_explora.config import PretrainExploraConfig
from components.shared.config import Config, unknown_key
from components.shared.errors import ConfigError
from components.split_dataset.config import SplitConfig
from components.train_baseline.config import TrainBaselineConfig
from components.train_gate.config import TrainGateConfig
from pipelines.resources import Profile, TrainingResources, runtime_parameters

PHASES: dict[str, type[Config]] = {
    "fingerprint_source": FingerprintConfig,
    "ingest_dataset": IngestConfig,
    "split_dataset": SplitConfig,
    "import_backbone": ImportBackboneConfig,
    "pretrain_explora": PretrainExploraConfig,
    "train_baseline": TrainBaselineConfig,
    "compare_adaptations": CompareAdaptationsConfig,
    "predict_logits": PredictLogitsConfig,
    "train_gate": TrainGateConfig,
    "compare_calibrators": CompareCalibratorsConfig,
    "fit_threshold": FitThresholdConfig,
    "calibrate_gate": CalibrateGateConfig,
    "calibrate_scrc": CalibrateScrcConfig,
    "evaluate": EvaluateConfig,
    "export_bundle": ExportConfig,
}
# Set by the pipeline, never by the user: from the first step's outputs, and one of `modes` for each training.
_WIRED = {"source_fingerprint", "backbone_fingerprint", "mode"}


def pipeline_parameters() -> list[inspect.Parameter]:
    """One keyword per distinct field of all phases, in phase order, with the KFP type and the common default."""
    merged: dict[str, inspect.Parameter] = {}
    for name, config_class in PHASES.items():
        defaults = config_class().to_json()
        hints = typing.get_type_hints(config_class)
        for field in dataclasses.fields(config_class):
            if field.name in _WIRED:
                continue
            parameter = inspect.Parameter(
                field.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=defaults[field.name],
                annotation=_kfp_type(hints[field.name]),
            )
            known = merged.setdefault(field.name, parameter)
            if known != parameter:
                raise ConfigError(f"{name}.{field.name} differs from another phase's: {parameter} against {known}")
    return list(merged.values())


def of_phase(phase: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` that are fields of `phase`."""
    return {field.name: values[field.name] for field in dataclasses.fields(PHASES[phase]) if field.name in values}


def validated(values: Mapping[str, Any], profile: Profile | None = None) -> dict[str, Any]:
    """`values` checked against every phase's configuration and, with a profile, as resources of a run on a cluster.

    Raises ConfigError before anything runs.
    """
    chosen = [parameter.name for parameter in runtime_parameters(profile)] if profile else []
    known = [*(parameter.name for parameter in pipeline_parameters()), *chosen]
    problems = [unknown_key(key, known) for key in values if key not in known]
    if problems:
        raise ConfigError("parameters: " + "; ".join(problems))
    for mode in CompareAdaptationsConfig.from_mapping(of_phase("compare_adaptations", values)).modes:
        TrainBaselineConfig.from_mapping(of_phase("train_baseline", values) | {"mode": mode})
    for phase, config_class in PHASES.items():
        if config_class is not TrainBaselineConfig:
            config_class.from_mapping(of_phase(phase, values))
    TrainingResources.from_mapping({name: values[name] for name in chosen if name in values})
    return dict(values)


def read_parameters(file: Path | None, pairs: list[str], profile: Profile | None = None) -> dict[str, Any]:
    """Parameters from a YAML or JSON file, overridden by `key=value` pairs (values are read as YAML)."""
    values: dict[str, Any] = {}
    if file is not None:
        try:
            document = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"parameter file {file}: {error}") from error
        if not isinstance(document, dict):
            raise ConfigError(f"parameter file {file}: must be a mapping of parameter names to values")
        values.update(document)
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"--param {pair!r} must be key=value")
        values[key] = _parse(key, text, profile)
    return validated(values, profile)


def _parse(key: str, text: str, profile: Profile | None) -> Any:
    known = [*pipeline_parameters(), *(runtime_parameters(profile) if profile else [])]
    types = {parameter.name: parameter.annotation for parameter in known}
    if types.get(key) is str:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--param {key}={text!r} is not a number, true/false, YAML list or mapping") from error
    # YAML 1.1 reads 1e-3 as text; JSON reads it as a number.
    if isinstance(value, str) and types.get(key) in (int, float):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _kfp_type(hint: Any) -> type:
    origin = typing.get_origin(hint)
    if origin is tuple:
        return list
    return origin or typing.cast(type, hint)
