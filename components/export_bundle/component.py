"""KFP interface of export_bundle."""

from kfp import dsl

from components.export_bundle.config import ExportConfig
from components.shared.artifact_types import Bundle, Checkpoint, Evaluation, ImageDataset, Policy
from components.shared.component import documented
from pipelines.sources import trainer_image


# fmt: off
@dsl.component(base_image=trainer_image(__name__), install_kfp_package=False)
@documented(ExportConfig)
def export_bundle(
    checkpoint: dsl.Input[Checkpoint], gate_checkpoint: dsl.Input[Checkpoint], softmax_policy: dsl.Input[Policy],
    gate_policy: dsl.Input[Policy], scrc_policy: dsl.Input[Policy], evaluation: dsl.Input[Evaluation],
    dataset: dsl.Input[ImageDataset], bundle: dsl.Output[Bundle],
    policy: str = "softmax", model_name: str = "streetvision-roadwork", model_version: str = "0.1.0",
    description: str = "Roadwork classifier, stage 1 of a cascade.", submitted_by: str = "", submission_time: int = 0,
) -> None:
    """Write the deployable directory: model with the threshold folded in, one policy, model cards, checksums."""
    arguments = dict(locals())
    from components.export_bundle import config, step
    from components.shared.step import execute
    execute(step.run, config.ExportConfig, arguments)
