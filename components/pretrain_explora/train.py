r"""The torchrun entry of pretrain_explora: one rank of training, then the merged backbone.

python -m torch.distributed.run --standalone --nproc-per-node=N \
    -m components.pretrain_explora.train --config job.json
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn

from components.pretrain_explora.config import PretrainExploraConfig
from components.pretrain_explora.dino import DinoTask
from components.pretrain_explora.explora import prepare_explora
from components.pretrain_explora.mae import Decoder, MaeTask, MaskedAutoencoder
from components.pretrain_explora.student import PrototypeHead, Student
from components.pretrain_explora.train_crops import TrainCrops
from components.shared.contracts.artifacts import write_json
from components.shared.contracts.listing import say
from components.shared.data.train_images import TrainImages
from components.shared.data.train_labels import read_train_labels
from components.shared.models import adapters
from components.shared.models.backbone import exact_tokens, image_statistics, load_backbone
from components.shared.models.blocks import prepare_blocks
from components.shared.training.checkpoint.writer import CheckpointWriter
from components.shared.training.loop.distributed import World
from components.shared.training.loop.measurements import Measurements
from components.shared.training.loop.record import write_metrics
from components.shared.training.session.fit import fit
from components.shared.training.session.rank import run_rank

_N_PROBED = 8  # images on which the merged backbone is compared with the trained one
_PREPROCESSING = (
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
)


def train(
    config: PretrainExploraConfig,
    train_images: Path,
    pretrained: Path,
    work: Path,
    world: World,
    checkpoints: CheckpointWriter,
    train_labels: Path | None = None,
) -> None:
    """Train one rank; the main rank writes the results to `work`.

    `backbone/` is the merged backbone with its adapter and metrics, `training.json` the summary,
    `probe.safetensors` the images and tokens with which `verify` compares the merged backbone.
    """
    images = TrainImages.open(train_images)
    mean, std = image_statistics(str(pretrained))
    labels, n_classes = None, 0
    if train_labels is not None:
        _, classes, n_classes = read_train_labels(train_labels, images)
        labels = torch.from_numpy(classes).to(world.device)

    size = min(config.explora_crop_size, images.image_size)
    crops = TrainCrops(images, size, mean, std, world.device, labels)

    plain = load_backbone(str(pretrained))
    n_all = sum(parameter.numel() for parameter in plain.parameters())
    backbone = prepare_explora(
        plain,
        rank=config.explora_rank,
        alpha=config.explora_alpha,
        unfrozen_blocks=config.explora_unfrozen_blocks,
    )

    prepare_blocks(backbone, config)
    n_trainable = adapters.trainable_counts(backbone)[0]
    task = _task(config, backbone, crops, n_classes, world)

    out = work / "backbone"

    if world.is_main:
        out.mkdir()
        say(
            f"{config.explora_objective}: training {n_trainable:,} of the backbone's {n_all:,}"
            f" parameters ({n_trainable / n_all:.1%}), {world.size} process(es)"
        )

    measurements = Measurements(world, profile=config.profile)
    result = fit(
        task, config, world, lambda history: write_metrics(out, history), checkpoints, measurements
    )
    if world.is_main:
        measurements.write(work / "measurements.html")

    if world.is_main:
        _write(out, work, pretrained, backbone, crops)
        summary = {
            "objective": config.explora_objective,
            "epochs_run": len(result.history),
            "last_metrics": {name: round(value, 9) for name, value in result.history[-1].items()},
            "micro_batch_size": result.micro_batch_size,
            "trainable_parameters": n_trainable,
            "parameters": n_all,
            "trainable_fraction": round(n_trainable / n_all, 6),
            "n_processes": world.size,
            "computation": config.computation() | {"device": world.device.type},
            "n_images": len(images),
            "labels": n_classes > 0,
        }
        write_json(work / "training.json", summary)


def _task(
    config: PretrainExploraConfig,
    backbone: PeftModel,
    crops: TrainCrops,
    n_classes: int,
    world: World,
) -> DinoTask | MaeTask:
    """Return the task of the configured objective, with new heads or decoder, on the device."""
    width, patch = backbone.config.hidden_size, backbone.config.patch_size
    class_head = nn.Linear(width, n_classes) if n_classes else None
    if config.explora_objective == "dino":
        head = PrototypeHead(width, config.explora_head_width, config.explora_prototypes)
        return DinoTask(config, Student(backbone, head, class_head).to(world.device), crops, world)

    decoder = Decoder(width, config.explora_decoder_width, crops.size // patch, patch)

    return MaeTask(
        config, MaskedAutoencoder(backbone, decoder, class_head).to(world.device), crops, world
    )


def _write(out: Path, work: Path, pretrained: Path, backbone: PeftModel, crops: TrainCrops) -> None:
    """Write the adapter, the merged backbone, and tokens of some images for `verify`."""
    backbone = backbone.cpu().eval()
    adapters.save_adapter(backbone, out / "adapter")
    probe = crops.full_images(np.arange(min(_N_PROBED, len(crops.images)))).cpu()
    tokens = exact_tokens(backbone, probe)
    save_file(
        {"pixels": probe.contiguous(), "tokens": tokens.contiguous()}, work / "probe.safetensors"
    )
    adapters.merge(backbone, probe).save_pretrained(out)
    for name in _PREPROCESSING:
        if (pretrained / name).is_file():
            shutil.copyfile(pretrained / name, out / name)


if __name__ == "__main__":
    run_rank(train, PretrainExploraConfig, __doc__)
