"""Import of a pretrained backbone, verified by loading it once."""

from components.import_backbone.backbone_sources import copy_backbone
from components.import_backbone.config import ImportBackboneConfig
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import writing
from components.shared.contracts.errors import ConfigError
from components.shared.contracts.listing import say
from components.shared.contracts.step import OutputDir, main

STEP = "import_backbone"


def run(config: ImportBackboneConfig, *, pretrained: OutputDir) -> None:
    """Write the backbone unchanged, in Hugging Face's folder layout, and load it once.

    Raises:
        ConfigError: The backbone is not set, or its name is invalid.
        DataError: The backbone does not exist, is not in safetensors, has an unsupported
            architecture, would run code, or its configuration or weights are damaged.
        TransientError: The Hub does not deliver it.
    """
    if not config.backbone:
        raise ConfigError(
            "backbone='' is not set; give a Hugging Face folder, local or s3://, or a hub id"
        )

    summary: dict[str, object] = {}
    with writing(pretrained, kind=Kind.BACKBONE, step=STEP, config=config, summary=summary) as out:
        summary["source"] = copy_backbone(config.backbone, out)
        # Imported after the copy, so that a wrong name fails without the import of torch.
        from components.shared.models.backbone import load_backbone

        loaded = load_backbone(out, where=f"backbone={config.backbone!r}")
        summary["type"] = loaded.config.model_type
        summary["parameters"] = sum(parameter.numel() for parameter in loaded.parameters())

    say(f"{summary['type']} of {summary['parameters']:,} parameters from {summary['source']}")


if __name__ == "__main__":
    main(run, ImportBackboneConfig)
