"""The run form: the few parameters that a run has in Kubeflow.

Everything else is reached by `overrides`.

KFP sorts the form by name and groups nothing, so the list stays short; a later option goes into its
phase's configuration. KFP's form cannot be sent while a parameter has no default, and its numbers
cannot be empty: a parameter is text, and empty text stands for the recipe's value.
"""

from dataclasses import dataclass
from typing import Any

from components.compare_adaptations.config import CompareAdaptationsConfig
from components.configure.recipes import NAMES
from components.export_bundle.config import ExportConfig
from components.import_backbone.config import ImportBackboneConfig
from components.ingest_dataset.config import IngestConfig
from components.shared.contracts.config import Config, accepted_values, adjusted, option
from components.shared.policies.config import SelectiveConfig
from components.train_baseline.config import TrainBaselineConfig

PRETRAIN = ("none", "unlabelled", "labelled")


def _field_of(phase: type[Config], name: str, *, required: bool = False) -> Any:
    """Declare the form's text field for a phase's option, described by that option's help."""
    field = phase.__dataclass_fields__[name]
    accepted = accepted_values(field)
    values = f" Values: {accepted}." if accepted else ""
    empty = " Required." if required else " Empty: the recipe's value."
    return option("", f"{field.metadata['help']}{values}{empty}")


@dataclass(frozen=True, kw_only=True)
class RunForm(Config):
    """The parameters that a user changes from run to run."""

    data: str = _field_of(IngestConfig, "data", required=True)
    backbone: str = _field_of(ImportBackboneConfig, "backbone", required=True)
    recipe: str = option(
        "default", f"Shipped set of options. Values: {', '.join(NAMES)}.", choices=NAMES
    )
    mode: str = _field_of(TrainBaselineConfig, "mode")
    policy: str = _field_of(SelectiveConfig, "policy")
    alpha: str = _field_of(SelectiveConfig, "alpha")
    risk: str = _field_of(SelectiveConfig, "risk")
    epochs: str = _field_of(TrainBaselineConfig, "epochs")
    learning_rate: str = _field_of(TrainBaselineConfig, "learning_rate")
    image_size: str = _field_of(IngestConfig, "image_size")
    input_size: str = _field_of(TrainBaselineConfig, "input_size")
    seed: str = option("", "Seed of all random numbers of the run. Empty: the recipe's value.")
    model_version: str = _field_of(ExportConfig, "model_version")
    overrides: dict[str, Any] = option(
        {},
        'Any other option: {"phase.option": value}, for example {"train_baseline.dropout": 0.2}.',
    )


@dataclass(frozen=True, kw_only=True)
class ConfigureConfig(RunForm):
    """The form, and the choices of the compiled pipeline."""

    pretrain: str = option(
        "none",
        "Extended pre-training: none, on TRAIN's images, or with TRAIN's labels as well.",
        choices=PRETRAIN,
    )
    modes: tuple[str, ...] = adjusted(CompareAdaptationsConfig, "modes", default=())
    promote: bool = option(
        False, "Whether the bundle is promoted: the champion and the lineage are the registry's."
    )
    audit_labels: bool = option(False, "Whether a task looks for wrong labels.")
    formats: tuple[str, ...] = adjusted(ExportConfig, "formats")
