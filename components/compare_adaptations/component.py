"""KFP interface of compare_adaptations.

A back end fetches a `dsl.Collected` list by its first artifact's bucket alone, and fails where some
are cached and some new. So each candidate has inputs of its own; those that a pipeline does not
connect are None.
"""

from kfp import dsl

from components.artifact_types import Checkpoint, Comparison, ValSelectLogits
from components.base_images import CPU
from components.kfp_component import component

MAX_CANDIDATES = 6


@component(CPU)
def compare_adaptations(
    checkpoint_1: dsl.Input[Checkpoint],
    val_select_logits_1: dsl.Input[ValSelectLogits],
    checkpoint_2: dsl.Input[Checkpoint],
    val_select_logits_2: dsl.Input[ValSelectLogits],
    checkpoint: dsl.Output[Checkpoint],
    comparison: dsl.Output[Comparison],
    table: dsl.Output[dsl.Markdown],
    config: dict,
    checkpoint_3: dsl.Input[Checkpoint] = None,
    val_select_logits_3: dsl.Input[ValSelectLogits] = None,
    checkpoint_4: dsl.Input[Checkpoint] = None,
    val_select_logits_4: dsl.Input[ValSelectLogits] = None,
    checkpoint_5: dsl.Input[Checkpoint] = None,
    val_select_logits_5: dsl.Input[ValSelectLogits] = None,
    checkpoint_6: dsl.Input[Checkpoint] = None,
    val_select_logits_6: dsl.Input[ValSelectLogits] = None,
) -> None:
    """Compare adaptations on VAL_SELECT with paired intervals; select the best checkpoint."""
    from components.compare_adaptations.step import run
    from components.shared.contracts.step import execute

    checkpoints = [
        checkpoint_1,
        checkpoint_2,
        checkpoint_3,
        checkpoint_4,
        checkpoint_5,
        checkpoint_6,
    ]

    logits = [
        val_select_logits_1,
        val_select_logits_2,
        val_select_logits_3,
        val_select_logits_4,
        val_select_logits_5,
        val_select_logits_6,
    ]
    execute(
        run,
        config,
        checkpoints=[artifact for artifact in checkpoints if artifact is not None],
        val_select_logits=[artifact for artifact in logits if artifact is not None],
        checkpoint=checkpoint,
        comparison=comparison,
        table=table,
    )
