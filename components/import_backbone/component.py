"""KFP interface of import_backbone."""

from kfp import dsl

from components.import_backbone.config import ImportBackboneConfig
from components.shared.artifact_types import Backbone
from components.shared.component import documented
from pipelines.sources import trainer_image


# fmt: off
@dsl.component(base_image=trainer_image(__name__), install_kfp_package=False)
@documented(ImportBackboneConfig)
def import_backbone(
    pretrained: dsl.Output[Backbone], backbone: str = "", backbone_fingerprint: str = "",
) -> None:
    """Copy a pretrained backbone from a folder, an object store or the Hugging Face hub, and load it once."""
    arguments = dict(locals())
    from components.import_backbone import config, step
    from components.shared.step import execute
    execute(step.run, config.ImportBackboneConfig, arguments)
