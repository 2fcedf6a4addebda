"""Shared options are declared once, and every phase inherits them."""

import dataclasses
import re
from collections import defaultdict

import pytest

from components.configure import resolve
from components.configure.config import ConfigureConfig
from components.configure.phases import PHASES
from components.predict_logits.config import PredictLogitsConfig
from components.pretrain_explora.config import PretrainExploraConfig
from components.shared.contracts.config import Config, option
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.options import (
    BackboneLoopConfig,
    ComputeConfig,
    LoopConfig,
    RecipeConfig,
    TorchrunConfig,
)
from components.train_baseline.config import TrainBaselineConfig
from components.train_gate.config import TrainGateConfig


def _declarations(classes: list[type[Config]]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return, by option and by help text, the names of the classes and options that declare it."""
    by_name: dict[str, set[str]] = defaultdict(set)
    by_help: dict[str, set[str]] = defaultdict(set)
    for config_class in {base for derived in classes for base in derived.__mro__}:
        for name in vars(config_class).get("__annotations__", {}):
            field = getattr(config_class, "__dataclass_fields__", {}).get(name)
            if field is not None and field.metadata and "adjusts" not in field.metadata:
                # A phase that only `phase.option` sets has a name of its own.
                qualified = name in getattr(config_class, "QUALIFIED", ())
                option_name = f"{config_class.__name__}.{name}" if qualified else name
                by_name[option_name].add(config_class.__name__)
                by_help[field.metadata["help"]].add(name)
    return by_name, by_help


def _repeated(classes: list[type[Config]]) -> list[str]:
    by_name, by_help = _declarations(classes)
    names = [f"{name}: {sorted(where)}" for name, where in by_name.items() if len(where) > 1]
    return sorted(names + [text for text, where in by_help.items() if len(where) > 1])


def test_every_option_is_declared_once() -> None:
    assert _repeated(list(PHASES.values())) == []


def test_a_repeated_declaration_is_found() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Repeats(Config):
        seed: int = option(0, "Another seed.", ge=0)

    assert _repeated([*PHASES.values(), Repeats]) == ["seed: ['Repeats', 'SeedConfig']"]


@pytest.mark.parametrize("phase", PHASES)
def test_an_adjusted_option_stays_within_the_range_of_its_declaration(phase: str) -> None:
    for field in dataclasses.fields(PHASES[phase]):
        base = field.metadata.get("adjusts")
        if base is not None:
            declared = base.__dataclass_fields__[field.name].metadata
            assert declared["choices"] == field.metadata["choices"]
            assert (declared["ge"] or 0) <= (field.metadata["ge"] or 0)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("learning_rate", "auto"),
        ("profit_reference_rate", "auto"),
        ("micro_batch_size", "auto"),
        ("n_processes", "auto"),
        ("patience", "none"),
        ("gradient_clip", "none"),
        ("ema_decay", "none"),
        ("checkpoint_steps", "none"),
        ("tile_grid", "none"),
    ],
)
def test_zero_is_refused_with_the_word_for_automatic_or_off(name: str, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=0 must be >=? \d, or {word}"):
        TrainBaselineConfig(**{name: 0})  # type: ignore[arg-type]
    assert TrainBaselineConfig(**{name: word}) == TrainBaselineConfig(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "rate"), [("frozen", 1e-3), ("full", 2e-5), ("lora", 2e-4)])
def test_an_automatic_learning_rate_is_a_number_after_construction(mode: str, rate: float) -> None:
    config = TrainBaselineConfig(mode=mode, learning_rate=None)  # type: ignore[arg-type]
    assert config.learning_rate == rate
    assert config.to_json()["learning_rate"] == rate
    assert config.to_json(resolved=False)["learning_rate"] is None
    assert TrainBaselineConfig(mode=mode, learning_rate=0.5).to_json(resolved=False)[
        "learning_rate"
    ] == (0.5)


def test_profits_reference_rate_follows_the_learning_rate() -> None:
    config = TrainBaselineConfig(mode="full", optimizer="profit", learning_rate=0.5)
    assert config.reference_rate == config.profit_reference_rate == 0.005
    assert TrainBaselineConfig().reference_rate is None


def test_what_depends_on_the_hardware_stays_automatic() -> None:
    values = TrainBaselineConfig().to_json()
    assert values["micro_batch_size"] is None
    assert values["n_processes"] is None


def test_a_loop_without_images_has_fixed_values_for_what_it_does_not_offer() -> None:
    loop = LoopConfig()
    assert (loop.micro_batch_size, loop.patience, loop.reference_rate) == (None, None, None)
    assert {"patience", "dropout"} <= RecipeConfig.__dataclass_fields__.keys()
    assert "micro_batch_size" not in RecipeConfig.__dataclass_fields__
    assert TorchrunConfig().n_processes is None


@pytest.mark.parametrize(
    "kind", [TrainBaselineConfig, TrainGateConfig, PretrainExploraConfig, PredictLogitsConfig]
)
def test_every_phase_with_a_backbone_has_the_options_of_its_computation(
    kind: type[ComputeConfig],
) -> None:
    with pytest.raises(ConfigError, match="precision='fp16' is refused: DINO backbones overflow"):
        kind(precision="fp16")
    assert kind(precision="bf16", deterministic=True, attention="eager").computation() == (
        {"precision": "bf16", "deterministic": True, "attention": "eager", "compile": "off"}
        | ({"gradient_checkpointing": False} if issubclass(kind, BackboneLoopConfig) else {})
    )


def test_one_value_sets_the_precision_of_all_that_train() -> None:
    resolved = resolve.resolve(ConfigureConfig(overrides={"precision": "bf16"}))
    phases = ("pretrain_explora", "extract_features", "train_baseline", "train_gate")
    assert [resolved[phase].to_json()["precision"] for phase in phases] == ["bf16"] * 4


@pytest.mark.parametrize(
    ("options", "image_size", "patch_size", "message"),
    [
        ({}, 225, 14, ""),
        ({"input_size": 224}, 224, 14, ""),
        ({"input_size": 224}, 448, None, ""),
        ({"input_size": 448}, 224, 14, r"input_size=448 is above image_size=224: more pixels"),
        ({"input_size": 230}, 448, 14, r"no multiple of the backbone's patch size 14; use 224$"),
        ({"input_size": 5}, 448, 14, r"; use 14$"),
        # Tiles are resized to tile_size, whatever they are cut from.
        ({"input_size": 230, "tile_grid": 2}, 448, 14, ""),
    ],
)
def test_images_are_seen_at_a_size_that_is_stored_and_has_whole_patches(
    options: dict[str, int], image_size: int, patch_size: int | None, message: str
) -> None:
    problem = TrainBaselineConfig(**options).input_problem(image_size, patch_size)
    assert re.search(message, problem) if message else problem == ""
