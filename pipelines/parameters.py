"""Parameters of a run from the command line, as fields of the form or as overrides."""

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from components.compare_adaptations.component import MAX_CANDIDATES
from components.configure.config import PRETRAIN, ConfigureConfig, RunForm
from components.configure.phases import PHASES
from components.configure.resolve import number, phases_with, resolve
from components.detect_drift.config import DetectDriftConfig, DriftForm
from components.export_bundle.config import ExportConfig
from components.import_bundle.config import ImportBundleConfig
from components.ingest_dataset.component import MAX_PARTS
from components.ingest_dataset.config import IngestConfig
from components.score_images.config import ScoreImagesConfig
from components.select_for_labelling.config import LabellingForm, SelectForLabellingConfig
from components.shared.contracts.adaptations import FROZEN, MODES
from components.shared.contracts.config import Config, adjusted
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.formats import DEFAULT_FORMATS, TRANSFORMERS
from components.shared.contracts.listing import shown
from components.train_baseline.config import TrainBaselineConfig
from pipelines.names import (
    CONTINUOUS,
    DRIFT,
    LABELLING,
    PIPELINES,
    SCORE,
    STAGE1,
    TUNE,
    TUNE_TRAINING,
)
from pipelines.plain_yaml import parse_yaml, read_yaml


@dataclass(frozen=True, kw_only=True)
class ScoreForm(Config):
    """Parameters of a run of the pipeline `score`, whose two phases they belong to."""

    images: str = adjusted(ScoreImagesConfig, "images")
    bundle: str = adjusted(ImportBundleConfig, "bundle")
    bundle_registry: str = adjusted(ImportBundleConfig, "bundle_registry")
    form: str = adjusted(ScoreImagesConfig, "form")

    def check(self) -> list[str]:
        """Refuse a run without images."""
        return [] if self.images else ["images is not set; give s3://bucket/prefix"]


# The parameters of a run of each pipeline. With RunForm the first step is `configure`; a pipeline
# with another form has no recipes and no overrides, and its graph no variants.
FORMS: dict[str, type[Config]] = {
    **dict.fromkeys((STAGE1, CONTINUOUS, TUNE, TUNE_TRAINING), RunForm),
    DRIFT: DriftForm,
    LABELLING: LabellingForm,
    SCORE: ScoreForm,
}
# Phases with a pipeline of their own, whose options no `configure` resolves.
STANDALONE: dict[str, type[Config]] = {
    "detect_drift": DetectDriftConfig,
    "select_for_labelling": SelectForLabellingConfig,
    "import_bundle": ImportBundleConfig,
    "score_images": ScoreImagesConfig,
}


@dataclass(frozen=True)
class Variant:
    """Choices of the pipeline's graph, made when it is compiled.

    Attributes:
        pretrain: Extended pre-training: no task ("none"), or one without or with labels.
        modes: Adaptations that are trained, and compared where they are several; empty: one
            training task, of the run's `mode`, for which features are computed if it is frozen.
        ingest_parts: Tasks that check the images side by side, each a part of the listing, and are
            merged; 1: one task without parts.
        pipeline: Which pipeline, a key of `names.PIPELINES`.
        audit_labels: Whether a task looks for wrong labels of TRAIN and VAL_SELECT.
        formats: Forms of the model in the bundle; those beyond the first are compared with it on
            the data set.
    """

    pretrain: str = "none"
    modes: tuple[str, ...] = ()
    ingest_parts: int = 1
    pipeline: str = STAGE1
    audit_labels: bool = False
    formats: tuple[str, ...] = DEFAULT_FORMATS

    def __post_init__(self) -> None:
        problems = []
        if self.pipeline not in PIPELINES:
            problems.append(f"--pipeline {self.pipeline!r} must be one of {', '.join(PIPELINES)}")
        elif not self.is_configured and self.name:
            problems.append(
                f"--pipeline {self.pipeline} has one graph: without --pretrain, --modes,"
                " --ingest-parts, --audit-labels and --formats"
            )
        if self.pretrain not in PRETRAIN:
            problems.append(f"--pretrain {self.pretrain!r} must be one of {', '.join(PRETRAIN)}")

        shown = ",".join(self.modes)
        unknown = [mode for mode in self.modes if mode not in MODES]
        if unknown:
            problems.append(f"--modes {shown!r}: {unknown[0]!r} must be one of {', '.join(MODES)}")
        if len(set(self.modes)) != len(self.modes):
            problems.append(f"--modes {shown!r} must be without duplicates")

        if len(self.modes) > MAX_CANDIDATES:
            problems.append(f"--modes {shown!r} must be at most {MAX_CANDIDATES}")
        if not 1 <= self.ingest_parts <= MAX_PARTS:
            problems.append(f"--ingest-parts {self.ingest_parts} must be 1 to {MAX_PARTS}")
        try:
            ExportConfig(formats=self.formats)
        except ConfigError as error:
            problems += [f"--{problem}" for problem in error.problems]
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def is_compared(self) -> bool:
        """Whether the bundle has formats that are compared with its first one."""
        return self.formats != (TRANSFORMERS,)

    @property
    def name(self) -> str:
        """Part of a version's name; empty for the default graph."""
        first = [f"pretrain-{self.pretrain}"] if self.pretrain != "none" else []
        last = [f"ingest-{self.ingest_parts}"] if self.ingest_parts > 1 else []
        last += ["audit"] if self.audit_labels else []
        last += self.formats if self.formats != DEFAULT_FORMATS else []
        return "-".join([*first, *self.modes, *last])

    def with_form(self, values: Mapping[str, Any]) -> ConfigureConfig:
        """Return the configuration of the run's first step: its parameters and this choice.

        Raises ConfigError.
        """
        return ConfigureConfig.from_mapping({**values, **self.compiled_in})

    @property
    def compiled_in(self) -> dict[str, Any]:
        """The choices that `configure` is told, beside the run's parameters."""
        return {
            "pretrain": self.pretrain,
            "modes": list(self.modes),
            "promote": self.pipeline == CONTINUOUS,
            "audit_labels": self.audit_labels,
            "formats": list(self.formats),
        }

    @property
    def is_configured(self) -> bool:
        """Whether the first step is `configure`, which has recipes and overrides."""
        return FORMS[self.pipeline] is RunForm

    @property
    def form(self) -> tuple[str, ...]:
        """Names of the run's parameters, in the order of their declaration."""
        names = (field.name for field in dataclasses.fields(FORMS[self.pipeline]))
        return tuple(name for name in names if not (self.modes and name == "mode"))


def parse_variant(
    pretrain: str,
    modes: str,
    ingest_parts: int = 1,
    pipeline: str = STAGE1,
    *,
    audit_labels: bool = False,
    formats: str = ",".join(DEFAULT_FORMATS),
) -> Variant:
    """Read the options of the graph; of `--modes` and `--formats` names with commas between."""
    return Variant(pretrain, _names(modes), ingest_parts, pipeline, audit_labels, _names(formats))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_parameters(file: Path | None, pairs: Sequence[str], variant: Variant) -> dict[str, Any]:
    """Return a run's parameters from a YAML or JSON file, overridden by `key=value` pairs.

    The values of the pairs are read as YAML.

    A key is a field of the form, the name of an option (set in every phase that has it), or
    `phase.option`; a file may also group options by phase, as recipes do. Raises ConfigError before
    anything runs.
    """
    given = _read_file(file) if file is not None else {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"--param {shown(pair)} must be key=value")
        given[key] = _parse(key, text, variant)
    return validated(_as_form(given, variant), variant)


def validated(values: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Return a run's parameters after the checks of its first step; raise ConfigError."""
    if variant.is_configured:
        _check_mode(resolve(variant.with_form(values)), variant)
    else:
        FORMS[variant.pipeline].from_mapping(values)

    problems = [
        f"{name}={shown(value)} is not UTF-8, as KFP's parameters are: rename the file or folder,"
        " or set PYTHONUTF8=1 where the terminal is not UTF-8"
        for name, value in values.items()
        if not is_utf8(json.dumps(value, ensure_ascii=False))
    ]
    if problems:
        raise ConfigError("; ".join(problems))

    return dict(values)


def _check_mode(phases: Mapping[str, Config], variant: Variant) -> None:
    """Raise ConfigError where a search is asked for that the training's mode does not have."""
    training = phases["train_baseline"]
    assert isinstance(training, TrainBaselineConfig)
    if variant.pipeline == TUNE and training.mode != FROZEN:
        raise ConfigError(
            f"mode={training.mode!r} trains the backbone, so that no head learns from stored"
            f" features; use --search training, or --pipeline {TUNE_TRAINING}"
        )
    if variant.pipeline == TUNE_TRAINING and training.mode == FROZEN:
        raise ConfigError(
            f"mode={training.mode!r} trains the head alone; use --search head, or --pipeline"
            f" {TUNE}, or another mode"
        )


def is_utf8(text: str) -> bool:
    """Whether the text has an encoding: a file's name of other bytes has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sources_of(values: Mapping[str, Any], variant: Variant) -> list[str]:
    """Return where a run's images are: folders, files, or s3:// addresses; raise ConfigError.

    None of a pipeline without `configure`.
    """
    if not variant.is_configured:
        return []
    ingest = cast(IngestConfig, resolve(variant.with_form(values))["ingest_dataset"])
    return [source.data for source in ingest.sources()]


def _as_form(given: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Return fields of the form as text, everything else as overrides.

    A name that is both a field of the form and an option of a phase means the field. A form without
    overrides is returned as it is.
    """
    if not variant.is_configured:
        return dict(given)

    values: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for key, value in given.items():
        if key == "overrides" and isinstance(value, Mapping):
            overrides |= value
        elif key in RunForm.__dataclass_fields__:
            values[key] = value if isinstance(value, str) else json.dumps(value)
        else:
            overrides[key] = value

    # As KFP hands them over: the keys of a JSON mapping are text, where YAML may have numbers.
    return values | ({"overrides": json.loads(json.dumps(overrides))} if overrides else {})


def _read_file(file: Path) -> dict[str, Any]:
    where = f"parameter file {file}"
    document = read_yaml(file, where)
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigError(f"{where}: must be a mapping of parameter names to values")
    return document


def _parse(key: str, text: str, variant: Variant) -> Any:
    form = FORMS[variant.pipeline]
    if form is RunForm and key in form.__dataclass_fields__ and key != "overrides":
        return text

    hint = _hint(key) if form is RunForm else typing.get_type_hints(form).get(key)
    if hint is str:
        return text

    try:
        value = parse_yaml(text, f"--param {key}")
    except ConfigError as error:
        raise ConfigError(
            f"--param {key}={shown(text)} is not a number, true/false, YAML list or mapping"
            f" ({str(error).removeprefix(f'--param {key}: ')})"
        ) from None

    # YAML 1.1 reads 1e-3 as text; JSON reads it as a number.
    if isinstance(value, str) and {int, float} & {hint, *typing.get_args(hint)}:
        return number(value)

    return value


def _hint(key: str) -> Any:
    """Return the type of an option; None for an unknown name."""
    phase, _, name = key.rpartition(".")
    phases = [phase] if phase in PHASES else phases_with(name)
    return typing.get_type_hints(PHASES[phases[0]]).get(name) if phases else None
