"""KFP interface of configure.

KFP copies a component's function as source text into the spec and calls it by the parameters
written there, so this one list repeats the names of `ConfigureConfig`; a test compares them.
"""

from typing import NamedTuple

from components.base_images import CPU
from components.kfp_component import component


@component(CPU)
def configure(
    data: str,
    backbone: str,
    recipe: str,
    mode: str,
    policy: str,
    alpha: str,
    risk: str,
    epochs: str,
    learning_rate: str,
    image_size: str,
    input_size: str,
    seed: str,
    model_version: str,
    overrides: dict,
    pretrain: str,
    modes: list,
    promote: bool,
    audit_labels: bool,
    formats: list,
) -> NamedTuple(  # type: ignore[valid-type]
    "PhaseConfigs",
    [
        ("ingest_dataset", dict),
        ("split_dataset", dict),
        ("import_backbone", dict),
        ("pretrain_explora", dict),
        ("extract_features", dict),
        ("audit_labels", dict),
        ("train_baseline", dict),
        ("compare_adaptations", dict),
        ("predict_logits", dict),
        ("train_gate", dict),
        ("compare_calibrators", dict),
        ("fit_threshold", dict),
        ("calibrate_gate", dict),
        ("calibrate_scrc", dict),
        ("evaluate", dict),
        ("export_bundle", dict),
        ("promote_bundle", dict),
        ("tune_head", dict),
        ("tune_training", dict),
    ],
):
    """Validate every option of the run and configure each phase.

    The data and the backbone are fingerprinted.
    """
    from components.configure.step import run
    from components.shared.contracts.step import execute

    form = {
        "data": data,
        "backbone": backbone,
        "recipe": recipe,
        "mode": mode,
        "policy": policy,
        "alpha": alpha,
        "risk": risk,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "image_size": image_size,
        "input_size": input_size,
        "seed": seed,
        "model_version": model_version,
        "overrides": overrides,
        "pretrain": pretrain,
        "modes": modes,
        "promote": promote,
        "audit_labels": audit_labels,
        "formats": formats,
    }

    return execute(run, form)
