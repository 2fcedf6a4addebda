"""KFP interface of compare_adaptations."""

from kfp import dsl

from components.compare_adaptations.config import CompareAdaptationsConfig
from components.shared import artifact_types  # of a list, KFP finds the type by its module only
from components.shared.artifact_types import Checkpoint, Comparison
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(CompareAdaptationsConfig)
def compare_adaptations(
    checkpoints: dsl.Input[artifact_types.Checkpoints], val_select_logits: dsl.Input[artifact_types.AllValSelectLogits],
    checkpoint: dsl.Output[Checkpoint], comparison: dsl.Output[Comparison], table: dsl.Output[dsl.Markdown],
    modes: list = ["frozen"], monitor: str = "val_select/acc", positive_class: str = "Roadwork",  # noqa: B006
    n_bootstrap: int = 2000, seed: int = 0,
) -> None:
    """Compare adaptations of the backbone on VAL_SELECT with paired intervals; the best one's checkpoint goes on."""
    arguments = dict(locals())
    from components.compare_adaptations import config, step
    from components.shared.step import execute
    execute(step.run, config.CompareAdaptationsConfig, arguments)
