"""Resolution of recipe, form and overrides, in this order, into one configuration per phase."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.configure.config import ConfigureConfig, RunForm
from components.configure.phases import FEATURE_OPTIONS, OPTIONAL, PHASES, not_settable
from components.configure.recipes import read_recipe
from components.extract_features.config import ExtractFeaturesConfig
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.adaptations import FROZEN
from components.shared.contracts.config import Config, close_match
from components.shared.contracts.documents import parse_json
from components.shared.contracts.errors import ConfigError, DataError
from components.shared.contracts.listing import shown
from components.shared.contracts.options import ComputeConfig, TaskConfig
from components.train_baseline.config import TrainBaselineConfig

Options = dict[str, dict[str, Any]]

# Fields of the form that are options of phases; the others say where options come from.
_DIRECT = [
    field.name for field in dataclasses.fields(RunForm) if field.name not in ("recipe", "overrides")
]
# Earlier names; where a phase is named, the bare name means another phase's option.
_RENAMED = {
    "calib_share": "calib_fraction",
    "explora_batch_size": "pretrain_explora.global_batch_size",
    "explora_centring": "explora_centering",
    "explora_epochs": "pretrain_explora.epochs",
    "explora_learning_rate": "pretrain_explora.learning_rate",
    "explora_momentum": "pretrain_explora.ema_decay",
    "explora_weight_decay": "pretrain_explora.weight_decay",
    "gate_epochs": "train_gate.epochs",
    "gate_learning_rate": "train_gate.learning_rate",
    "gatekeeper_share": "gatekeeper_weight",
    "max_reject_share": "max_reject_fraction",
    "n_views": "n_cached_augmentations",
    "optimiser": "optimizer",
    "select_share": "select_fraction",
    "student": "distilled_head",
    "test_share": "test_fraction",
    "train_share": "train_fraction",
    "tuning_share": "tuning_fraction",
    "view_flips": "tile_flips",
    "view_grid": "tile_grid",
    "view_overlap": "tile_overlap",
    "view_sharpness": "aggregation_sharpness",
    "view_size": "tile_size",
    "view_top_k": "aggregation_top_k",
    "warmup_share": "warmup_ratio",
}


def resolve(config: ConfigureConfig) -> dict[str, Config]:
    """Return every phase's configuration; raise ConfigError that names all invalid options."""
    problems: list[str] = []
    options: Options = {phase: {} for phase in PHASES}
    absent = _absent(config)

    given: list[tuple[str, Mapping[str, Any]]] = [
        (f"recipe {config.recipe!r}", read_recipe(config.recipe)),
        ("", _form_values(config)),
        ("overrides", config.overrides),
    ]

    for origin, values in given:
        label = f"{origin}: " if origin else ""
        for phase, name, value in _assignments(values, absent, label, problems):
            options[phase][name] = value

    if config.modes and config.mode:
        problems.append(
            f"mode={config.mode!r}: this pipeline trains {', '.join(config.modes)}; leave mode"
            " empty"
        )

    if problems:
        raise ConfigError("; ".join(problems))

    return _built(config, options)


def option_names() -> list[str]:
    """Return all names that set an option, sorted: bare names, and `phase.option`."""
    bare = {
        name
        for config_class in PHASES.values()
        for name in _fields(config_class)
        if phases_with(name)
    }

    qualified = {
        f"{phase}.{name}"
        for phase, config_class in PHASES.items()
        for name in _fields(config_class)
        if not not_settable(phase, name)
    }
    return sorted({name for name in bare if not not_settable("", name)} | qualified)


def phases_with(option: str) -> list[str]:
    """Return the phases that the option's bare name sets, in the pipeline's order."""
    return [
        phase
        for phase, config_class in PHASES.items()
        if option in _fields(config_class) and option not in config_class.QUALIFIED
    ]


def _absent(config: ConfigureConfig) -> dict[str, str]:
    """Return the phases that this pipeline lacks, with the flag that compiles each in."""
    present = {
        "pretrain_explora": config.pretrain != "none",
        "compare_adaptations": len(config.modes) > 1,
        "promote_bundle": config.promote,
        "audit_labels": config.audit_labels,
    }
    absent = {phase: flag for phase, flag in OPTIONAL.items() if not present[phase]}
    if config.modes and FROZEN not in config.modes and not config.audit_labels:
        absent["extract_features"] = f"--modes with {FROZEN} among them"
    return absent


def _form_values(config: ConfigureConfig) -> dict[str, Any]:
    """Return the fields of the form that are not empty, as values of their options' types."""
    values = {}
    for name in _DIRECT:
        text = getattr(config, name)
        if text != "":
            phase = phases_with(name)[0]
            hint = typing.get_type_hints(PHASES[phase])[name]
            values[name] = text if hint is str else number(text)
    return values


def number(text: str) -> Any:
    """Return the number, list or mapping that the text is in JSON, else the text.

    The option refuses or reads a text: "1e-3" is a text in YAML 1.1 and a number in JSON.
    """
    try:
        return parse_json(text, "", error=ConfigError)
    except ConfigError:
        return text


def _assignments(
    values: Mapping[str, Any], absent: Mapping[str, str], label: str, problems: list[str]
) -> Iterator[tuple[str, str, Any]]:
    """Yield phase, option and value for each entry; add entries without one to `problems`.

    An option of one phase wins over the same option for all phases, in whichever order they stand:
    KFP sorts the keys of a mapping.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key in PHASES and isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value

    for key, value in sorted(flat.items(), key=lambda entry: "." in entry[0]):
        phase, _, name = key.rpartition(".")
        phases = [phase] if phase in PHASES and name in _fields(PHASES[phase]) else []
        if not phase:
            phases = phases_with(name)

        reason = not_settable(phase, name)
        if reason and phases:
            problems.append(f"{label}{key!r} {reason}")
        elif not phases:
            problems.append(label + _unknown(key))
        elif all(found in absent for found in phases):
            problems.append(
                f"{label}{key!r} is an option of {phases[0]}, which is compiled in by"
                f" {absent[phases[0]]}"
            )

        for found in phases:
            yield found, name, value


def _unknown(key: str) -> str:
    phase, _, name = key.rpartition(".")
    if name in _RENAMED:
        new = _RENAMED[name]
        if phase and "." not in new:
            new = f"{phase}.{new}"
        return f"{key!r} is now named {new!r}"

    close = close_match(key, option_names())
    hint = (
        f"did you mean {close!r}?"
        if close
        else "`python -m pipelines parameters` lists all options"
    )

    return f"unknown option {shown(key)}, {hint}"


def _built(config: ConfigureConfig, options: Options) -> dict[str, Config]:
    """Construct and check every configuration, each mode's too."""
    options["pretrain_explora"]["use_labeled_data"] = config.pretrain == "labelled"
    options["export_bundle"]["formats"] = list(config.formats)
    if config.modes:
        options["compare_adaptations"]["modes"] = list(config.modes)
        options["train_baseline"]["mode"] = config.modes[0]

    built: dict[str, Config] = {}
    problems: dict[str, list[str]] = {}

    for phase, config_class in PHASES.items():
        try:
            built[phase] = config_class.from_mapping(options[phase])
            for mode in config.modes if phase == "train_baseline" else ():
                config_class.from_mapping({**options[phase], "mode": mode})
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(phase)
            continue
        for problem in _kernel_problems(built[phase]):
            problems.setdefault(problem, []).append(phase)

    if not problems:
        built["extract_features"] = _extraction(config, built)
        problems = {problem: ["configure"] for problem in _between_phases(built)}
    if problems:
        raise ConfigError(
            "; ".join(f"{_listed(phases)}: {problem}" for problem, phases in problems.items())
        )

    return built


def _kernel_problems(config: Config) -> Iterator[str]:
    """Yield what each rank would refuse on any device, hours later."""
    if not isinstance(config, ComputeConfig) or config.attention != "flash":
        return
    if config.precision not in ("auto", "bf16"):
        yield (
            f"attention='flash' with precision={config.precision!r}: flash-attn computes in bf16"
            " only; use precision=bf16 or attention=sdpa"
        )


def _extraction(config: ConfigureConfig, built: Mapping[str, Config]) -> Config:
    """Return the extraction for the frozen training, with that training's options.

    Where nothing is trained on a frozen backbone, it has none of them: a change of one then changes
    no cache key. The audit of labels reads features of unaugmented images whatever is trained.
    """
    own, training = built["extract_features"], built["train_baseline"]
    assert isinstance(own, ExtractFeaturesConfig)
    assert isinstance(training, TrainBaselineConfig)
    if FROZEN not in (config.modes or (training.mode,)):
        defaults = ExtractFeaturesConfig()
        unused = {name: getattr(defaults, name) for name in FEATURE_OPTIONS}
        if not config.audit_labels:
            return dataclasses.replace(own, needed=False, **unused)

        seen = {name: getattr(training, name) for name in FEATURE_OPTIONS}
        alone = {name: unused[name] for name in ("n_cached_augmentations", "seed")}
        return dataclasses.replace(own, **{**seen, **alone, "augmentation": "none"})

    return dataclasses.replace(own, **{name: getattr(training, name) for name in FEATURE_OPTIONS})


def _between_phases(built: Mapping[str, Config]) -> Iterator[str]:
    """Yield contradictions between options of different phases."""
    ingest = built["ingest_dataset"]
    assert isinstance(ingest, IngestConfig)

    classes = ingest.known_classes
    tasks = {phase: config for phase, config in built.items() if isinstance(config, TaskConfig)}
    training = built["train_baseline"]
    assert isinstance(training, TrainBaselineConfig)
    problem = training.input_problem(ingest.image_size)
    if problem:
        yield problem

    # One line for all phases that say the same.
    yield from dict.fromkeys(
        problem for config in tasks.values() for problem in _task_problems(config, classes)
    )


def _task_problems(config: TaskConfig, classes: Sequence[str] | None) -> Iterator[str]:
    """Yield what a phase's options demand of the classes or of the task, and these do not give."""
    task = config.task
    if classes is not None:
        try:
            task = config.outcomes(classes).task
        except DataError as error:
            yield str(error)
            return

    if task is not None:
        yield from config.task_problems(task, classes)


def _listed(phases: list[str]) -> str:
    return phases[0] if len(phases) == 1 else f"{phases[0]} and {len(phases) - 1} more"


def _fields(config_class: type[Config]) -> list[str]:
    return [field.name for field in dataclasses.fields(config_class)]
