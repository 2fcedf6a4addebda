"""The run form: the few parameters that a run has in Kubeflow. Everything else is reached by
`overrides`.

KFP sorts the form by name and groups nothing, so the list stays short; a later option goes into its
phase's configuration. KFP's form cannot be sent while a parameter has no default, and its numbers
cannot be empty: a parameter is text, and empty text stands for the recipe's value.
"""

from dataclasses import dataclass
from typing import Any

from components.configure.recipes import NAMES
from components.shared.contracts.adaptations import MODES
from components.shared.contracts.config import Config, option

PRETRAIN = ("none", "unlabelled", "labelled")
_RECIPES = "Empty: the recipe's."


@dataclass(frozen=True, kw_only=True)
class RunForm(Config):
    """What a user changes from run to run."""

    data: str = option(
        "", "Images: folder with labels.csv, or Parquet; s3://bucket/prefix on a cluster. Required."
    )
    backbone: str = option(
        "",
        "Backbone (DINOv2, DINOv3, ViT): s3://bucket/prefix, Hugging Face Hub id, or a local"
        " folder. Required.",
    )
    recipe: str = option("default", f"Shipped set of options: {', '.join(NAMES)}.", choices=NAMES)
    mode: str = option("", f"What is trained besides the head: {', '.join(MODES)}. {_RECIPES}")
    policy: str = option(
        "",
        "What the bundle carries: softmax (never defers), gate or scrc (defer, with a guarantee)."
        f" {_RECIPES}",
    )
    alpha: str = option(
        "",
        "The risk among answered images is at most this, with probability 1 - delta; in (0, 1)."
        f" {_RECIPES}",
    )
    risk: str = option(
        "", f"Which risk that is: error (error rate) or fnr (false negative rate). {_RECIPES}"
    )
    epochs: str = option(
        "", f"Passes of the classifier's training over TRAIN; a whole number. {_RECIPES}"
    )
    learning_rate: str = option(
        "", f"Peak learning rate of the classifier's training, in [0, 1). {_RECIPES}"
    )
    image_size: str = option(
        "", f"Side of the stored square images, pixels, 16 to 2048. {_RECIPES}"
    )
    seed: str = option("", f"Seed of all random numbers; a whole number. {_RECIPES}")
    model_version: str = option("", f"Version X.Y.Z in the model cards. {_RECIPES}")
    overrides: dict[str, Any] = option(
        {},
        'Any other option: {"phase.option": value}, for example {"train_baseline.dropout": 0.2}.',
    )


@dataclass(frozen=True, kw_only=True)
class ConfigureConfig(RunForm):
    """The form, and what was chosen when the pipeline was compiled."""

    pretrain: str = option(
        "none",
        "Extended pre-training: none, on TRAIN's pixels, or with TRAIN's labels too.",
        choices=PRETRAIN,
    )
    modes: tuple[str, ...] = option(
        (), "Adaptations that are compared, one training task each.", choices=MODES
    )
