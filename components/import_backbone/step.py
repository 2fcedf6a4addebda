"""Which backbone does everything start from, and can it be loaded at all?"""

from components.import_backbone.backbone_sources import copy_backbone
from components.import_backbone.config import ImportBackboneConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.step import OutputDir, main

STEP = "import_backbone"


def run(config: ImportBackboneConfig, *, pretrained: OutputDir) -> None:
    """Write the backbone as it is at its place, in Hugging Face's folder layout, and load it once.

    Raises ConfigError or DataError where it is not set, not there, not in safetensors, of an
    unsupported architecture, or lacks weights.
    """
    if not config.backbone:
        raise ConfigError(
            "backbone='' is not set; give a Hugging Face folder, local or s3://, or a hub id"
        )
    summary: dict[str, object] = {}
    with writing(pretrained, kind=Kind.BACKBONE, step=STEP, config=config, summary=summary) as out:
        summary["source"] = copy_backbone(config.backbone, out)
        from components.shared.models.backbone import load_backbone

        loaded = load_backbone(str(out))
        summary["type"] = loaded.config.model_type
        summary["parameters"] = sum(parameter.numel() for parameter in loaded.parameters())
    print(f"{summary['type']} of {summary['parameters']:,} parameters from {summary['source']}")


if __name__ == "__main__":
    main(run, ImportBackboneConfig)
