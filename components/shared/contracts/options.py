"""Options that several phases share, each declared once in a mixin.

A phase's configuration inherits the mixins that it needs. One that has to change a default or to
narrow a description uses `adjusted`; no option is declared again.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from components.shared.contracts.adaptations import MONITORS
from components.shared.contracts.config import MOST_INTEGER, Config, Range, adjusted, option
from components.shared.contracts.environment import Variable
from components.shared.contracts.errors import ConfigError, InfeasibleError
from components.shared.contracts.outcomes import MULTICLASS, NEEDS_BINARY, TASKS, Outcomes

_HALF_REFUSED = (
    "precision='fp16' is refused: DINO backbones overflow its range (65504); use fp32 or bf16"
)

# In which the predictor computes: certificates are about its answers, and so the logits that they
# are made from.
PREDICTOR_PRECISION = "fp32"
# What changes the rounding of a training's sums, and nothing else: one that was interrupted goes on
# with other values. `deterministic` does not belong to them, or bits would depend on both values.
KERNEL_OPTIONS = frozenset({"attention", "compile", "gradient_checkpointing"})


@dataclass(frozen=True, kw_only=True)
class SeedConfig(Config):
    """The seed, from which every random stream of a phase is derived."""

    seed: int = option(0, "Seed of the phase's random numbers.", ge=0, le=MOST_INTEGER)


@dataclass(frozen=True, kw_only=True)
class NewImagesConfig(Config):
    """Images without labels, which a bundle looks at."""

    images: str = option("", "New images: a folder or s3://bucket/prefix, searched to any depth.")
    bundle_registry: str = option(
        "",
        f"Registry of bundles, s3://bucket/prefix; empty: that of {Variable.BUNDLE_REGISTRY}.",
    )


@dataclass(frozen=True, kw_only=True)
class NewImagesForm(Config):
    """Parameters of a run of one phase, the pipeline's only one."""

    STEP: ClassVar[type[NewImagesConfig]]  # configuration of the phase

    images: str = adjusted(NewImagesConfig, "images")
    options: dict[str, Any] = option({}, "Further options of the phase by name.")

    def check(self) -> list[str]:
        """Refuse what the step would refuse, and a run without images."""
        problems = [] if self.images else ["images is not set; give s3://bucket/prefix"]
        try:
            self.step()
        except ConfigError as error:
            problems += error.problems
        return problems

    def step(self) -> NewImagesConfig:
        """Return the configuration of the step."""
        places = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return self.STEP.from_mapping(places.pop("options") | places)


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """What is decided: whether an image shows the positive class, or which class it shows."""

    task: str | None = option(
        None,
        "binary: the positive class against the rest; multiclass: the most probable class; auto:"
        " binary for two classes, multiclass for more.",
        choices=TASKS,
        unset="auto",
    )
    positive_class: str | None = option(
        None,
        "Binary task: the class that is to be found; auto: Roadwork where it is a class, else the"
        " second of two classes.",
        unset="auto",
    )

    def outcomes(self, class_names: Sequence[str]) -> Outcomes:
        """Return the outcomes for a model with these classes; raises as `Outcomes.of`."""
        return Outcomes.of(class_names, self.task, self.positive_class)

    def task_problems(self, task: str, class_names: Sequence[str] | None = None) -> list[str]:
        """Return the options that have no meaning for the task, each with its value and a remedy.

        Args:
            task: the task, which may be known before the data are.
            class_names: the classes; None where they are not known yet.
        """
        del task, class_names
        return []

    def check_task(self, outcomes: Outcomes) -> None:
        """Raise InfeasibleError where an option has no meaning for the task."""
        problems = self.task_problems(outcomes.task, outcomes.class_names)
        if problems:
            raise InfeasibleError("; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig(SeedConfig):
    """Random draws over groups of samples, for intervals and tests."""

    n_bootstrap: int = option(
        2000,
        "Random draws over groups for intervals of thresholds and differences, and for tests.",
        ge=100,
        le=100_000,
    )
    seed: int = adjusted(SeedConfig, "seed", help="Seed of the bootstrap and of other resampling.")


@dataclass(frozen=True, kw_only=True)
class SlicesConfig(Config):
    """By what metrics are sliced."""

    slices: tuple[str, ...] | None = option(
        None,
        "Columns of the samples by whose values metrics are sliced; auto: all with 2 to 20 values,"
        " where brightness and sharpness have four, the quartiles of VAL_TEST.",
        unset="auto",
    )


@dataclass(frozen=True, kw_only=True)
class MonitorConfig(Config):
    """The metric by which models are selected."""

    monitor: str = option(
        "val_select/nll",
        "Metric on VAL_SELECT that selects the epoch and the adaptation; accuracy does not tell"
        " epochs apart while all decisions are of the more frequent class.",
        choices=MONITORS,
    )


@dataclass(frozen=True, kw_only=True)
class RiskLevelConfig(Config):
    """The level of risk of the policies that defer."""

    alpha: float = option(
        0.05,
        "The risk among answered images is at most this, with probability 1 - delta.",
        gt=0,
        lt=1,
    )


@dataclass(frozen=True, kw_only=True)
class EarlyExitConfig(Config):
    """Early exit of models with several views."""

    early_exit_error: float = option(
        0.005,
        "Multi-view models: maximum fraction of decisions that early exit may change, for a random"
        " image of a random group; 0: exit only if the remaining views cannot change the decision.",
        ge=0,
        lt=1,
    )


@dataclass(frozen=True, kw_only=True)
class TorchrunConfig(Config):
    """How a phase's processes are started and restarted; the result does not depend on it."""

    n_processes: int | None = option(
        None,
        "Processes of torchrun; auto: one per visible GPU, one without GPU.",
        ge=1,
        le=256,
        unset="auto",
    )
    max_restarts: int = option(
        3,
        "Maximum number of restarts of torchrun inside the pod, after failures that are not"
        " permanent.",
        ge=0,
        le=1000,
    )


@dataclass(frozen=True, kw_only=True)
class ResumableConfig(TorchrunConfig):
    """How a phase that an interruption does not throw back is launched."""

    require_durable: bool = option(
        False,
        "Stop if what is finished cannot be stored safely, instead of going on with a warning.",
    )


@dataclass(frozen=True, kw_only=True)
class LaunchConfig(ResumableConfig):
    """Processes, restarts and checkpoints of a training; the result does not depend on them."""

    checkpoint_seconds: int = option(
        600, "Longest time between two checkpoints, in seconds.", ge=1, le=604_800
    )
    checkpoint_steps: int | None = option(
        None,
        "Most optimizer steps between two checkpoints; none: only time counts.",
        ge=1,
        le=1_000_000_000,
        unset="none",
    )


@dataclass(frozen=True, kw_only=True)
class StepsLaunchConfig(LaunchConfig):
    """How a training of many steps is launched; the result does not depend on it."""

    profile: bool = option(
        False,
        "Profile a few steps: a table and a trace in the output `measurements`.",
    )


@dataclass(frozen=True, kw_only=True)
class ComputeConfig(Config):
    """How the backbone computes; each rank resolves `auto` for its device when it starts."""

    precision: str = option(
        "auto",
        "Number format of the backbone's passes. auto: bf16 on GPUs that have it, else fp32; tf32:"
        " fp32 with products rounded to 10 bits, on GPUs.",
        choices=("auto", "fp32", "tf32", "bf16", "fp16"),
    )
    deterministic: bool | None = option(
        None,
        "Equal trainings give equal bits; auto: on CPUs true, on GPUs false, where it is slower.",
        unset="auto",
    )
    attention: str = option(
        "sdpa",
        "Attention: sdpa, of PyTorch, which chooses the kernel; flash, of the package flash-attn;"
        " eager, plain products.",
        choices=("sdpa", "flash", "eager"),
    )
    compile: str = option(
        "off",
        "Compilation of the backbone's blocks by PyTorch, which needs a C compiler: off; default;"
        " max-autotune, which compares kernels first.",
        choices=("off", "default", "max-autotune"),
    )

    def check(self) -> list[str]:
        """Refuse fp16 with the reason."""
        return [*super().check(), *([_HALF_REFUSED] if self.precision == "fp16" else [])]

    def computation(self) -> dict[str, Any]:
        """Return these options by name, for the record of what computed a result."""
        names = (*ComputeConfig.__dataclass_fields__, "gradient_checkpointing")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


@dataclass(frozen=True, kw_only=True)
class LoopConfig(ComputeConfig, SeedConfig):
    """Hyper-parameters of the training loop, as `fit` takes them.

    Sizes count samples over all processes. What a phase does not offer as an option is a property
    here.
    """

    epochs: int = option(20, "Passes over TRAIN.", ge=1, le=10_000)
    learning_rate: float = option(
        1e-3,
        "Peak learning rate of AdamW.",
        gt=0,
        lt=1,
        search=Range(1 / 30, 30, log=True, relative=True),
    )
    global_batch_size: int = option(
        64,
        "Samples per optimizer step over all processes.",
        ge=1,
        le=1_000_000,
        search=Range(16, 256, log=True),
    )
    weight_decay: float = option(
        0.01, "AdamW weight decay of matrices.", ge=0, lt=1, search=Range(1e-5, 0.3, log=True)
    )
    warmup_ratio: float = option(
        0.1,
        "Fraction of all steps with linearly rising learning rate; cosine decay follows.",
        ge=0,
        lt=1,
    )
    gradient_clip: float | None = option(
        1.0, "Largest global gradient norm; none: no clipping.", gt=0, le=1e6, unset="none"
    )
    ema_decay: float | None = option(
        0.99,
        "EMA decay of the weights that are evaluated and exported; none: no averaging.",
        gt=0,
        lt=1,
        unset="none",
        search=Range(0.9, 0.999),
    )
    seed: int = adjusted(
        SeedConfig,
        "seed",
        help="Seed of initial weights, order of samples, augmentation and dropout.",
    )

    @property
    def micro_batch_size(self) -> int | None:
        """Samples per forward pass and process; None: the process's part of the global batch."""
        return None

    @property
    def patience(self) -> int | None:
        """Epochs without improvement before training stops; None: it never does."""
        return None

    @property
    def reference_rate(self) -> float | None:
        """Learning rate of PROFIT's reference step; None: plain AdamW."""
        return None


@dataclass(frozen=True, kw_only=True)
class BackboneLoopConfig(LoopConfig):
    """Options of a loop that passes images through the backbone."""

    micro_batch_size: int | None = option(
        None,
        "Samples per forward pass and process; auto: its part of the global batch, or on a GPU"
        " without `deterministic` and `compile` the fastest of that, its half, quarter and eighth."
        " Halved when memory runs out.",
        ge=1,
        le=1_000_000,
        unset="auto",
    )
    gradient_checkpointing: bool = option(
        False,
        "Compute each block again in the backward pass: less memory for about a third more time.",
    )


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig(Config):
    """The augmentation of TRAIN's images."""

    augmentation: str = option(
        "moderate",
        "Strength of the random augmentation of training images.",
        choices=("none", "moderate", "aggressive"),
        search=True,
    )
    n_cached_augmentations: int = option(
        4,
        "Frozen backbone: cached feature sets per image; the first is of the unaugmented image.",
        ge=1,
        le=64,
    )


@dataclass(frozen=True, kw_only=True)
class InputConfig(Config):
    """What a classifier sees of a stored image: its size, and the views that are cut from it."""

    input_size: int | None = option(
        None,
        "Side in pixels of the image that the model sees, or that tiles are cut from; at most"
        " image_size, and then random crops are taken from the stored pixels; auto: image_size.",
        ge=1,
        le=2048,
        unset="auto",
    )
    tile_grid: int | None = option(
        None,
        "Views: the whole image and tile_grid x tile_grid tiles of it; none: the whole image only.",
        ge=2,
        le=8,
        unset="none",
    )
    tile_overlap: float = option(
        0.0, "Fraction of a tile's side that its neighbour covers as well.", ge=0, lt=1
    )
    tile_flips: bool = option(False, "Also use every view mirrored; doubles the cost.")
    tile_size: int = option(
        224, "Side of each view in pixels, if there are several.", ge=1, le=2048
    )

    def input_problem(self, image_size: int, patch_size: int | None = None) -> str:
        """Return why images cannot be seen at `input_size`, or an empty text.

        Args:
            image_size: Side of the stored images in pixels.
            patch_size: Side of the backbone's patches in pixels; None where it is not known.
        """
        if self.input_size is None:
            return ""

        if self.input_size > image_size:
            return (
                f"input_size={self.input_size} is above image_size={image_size}: more pixels than"
                " are stored; use input_size=auto, or store larger images"
            )
        # Tiles are resized to tile_size: no patch is cut from the whole.
        if patch_size and self.tile_grid is None and self.input_size % patch_size:
            return (
                f"input_size={self.input_size} is no multiple of the backbone's patch size"
                f" {patch_size}; use {max(self.input_size // patch_size, 1) * patch_size}"
            )
        return ""


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(StepsLaunchConfig, LoopConfig, TaskConfig, AugmentationConfig):
    """Options of a training of classifier heads on labelled images."""

    patience: int | None = option(
        10,
        "Epochs without improvement before training stops; none: all epochs are trained.",
        ge=1,
        le=10_000,
        unset="none",
    )
    dropout: float = option(0.3, "Dropout on the head's input.", ge=0, lt=1, search=Range(0.0, 0.7))
    conformal_weight: float = option(
        0.0,
        "Weight of conformal risk training: the smoothed false positive rate at the conformal"
        " threshold of the global batch. Refused where it could act in less than half of the"
        " steps.",
        ge=0,
        le=1e6,
    )
    conformal_alpha: float = option(
        0.1,
        "False negative rate of the conformal threshold; half of a global batch needs"
        " 1 / conformal_alpha - 1 positives.",
        gt=0,
        lt=1,
    )

    def task_problems(self, task: str, class_names: Sequence[str] | None = None) -> list[str]:
        """Return the options that need a positive class, where there is none."""
        problems = super().task_problems(task, class_names)
        if self.conformal_weight and task == MULTICLASS:
            problems.append(f"conformal_weight={self.conformal_weight:g} {NEEDS_BINARY}")
        return problems

    def check_training(self, class_names: Sequence[str]) -> None:
        """Refuse classes that cannot be trained with these options.

        Raises:
            ConfigError: an option has no meaning for the task.
            DataError: the positive class is none of them.
        """
        problems = self.task_problems(self.outcomes(class_names).task, class_names)
        if problems:
            raise ConfigError("; ".join(problems), problems)
