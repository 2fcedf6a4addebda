"""KFP interface of import_backbone."""

from kfp import dsl

from components.artifact_types import Backbone
from components.base_images import TRAINER
from components.kfp_component import component


@component(TRAINER)
def import_backbone(
    pretrained: dsl.Output[Backbone],
    config: dict,
) -> None:
    """Import a pretrained backbone from a folder, an object store or the Hub; load it once."""
    from components.import_backbone.step import run
    from components.shared.contracts.step import execute

    execute(run, config, pretrained=pretrained)
