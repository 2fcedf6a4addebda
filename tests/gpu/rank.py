"""One rank under torchrun that trains three steps: `-m tests.gpu.rank --config job.json`.

It imports what a training imports. The main rank leaves its weights.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from components.shared.training.classifier.tasks import ImageTask
from components.shared.training.launch.torchrun import report_error
from components.shared.training.loop.distributed import World, leave, process_group
from components.shared.training.loop.trainer import Trainer
from tests.gpu.workload import Workload, trained


def _train(world: World, backbone: Path, work: Path) -> None:
    # What a training exchanges: flags, gathered rows, and numbers of a step.
    for kind in (torch.uint8, torch.int64, torch.float32, torch.float64):
        sent = torch.ones(3, dtype=kind, device=world.device)
        dist.all_reduce(sent)
        assert sent.tolist() == [world.size] * 3

    folder = work / f"rank-{world.rank}"
    folder.mkdir()
    (folder / "dinov2-S").symlink_to(backbone)
    workload = Workload(folder, world.device, small=True)
    config = workload.config(mode="lora", micro_batch_size=4)
    classifier = workload.classifier("S", config, "dinov2")
    task = ImageTask(config, classifier, workload.split, workload.split, world)
    trainer = trained(Trainer(task, config, world), range(3))
    if world.is_main:
        values = {
            name: value.detach().cpu().contiguous()
            for name, value in zip(trainer.names, trainer.parameters, strict=True)
        }
        save_file(values, work / "weights.safetensors")


def main() -> None:
    """Run the rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    job = parser.parse_args().config
    try:
        with process_group() as world:
            backbone = json.loads(job.read_text(encoding="utf-8"))["backbone"]
            _train(world, Path(backbone), job.parent)
    except Exception as error:
        report_error(job.parent, 0, error)
        leave(1)
    leave(0)


if __name__ == "__main__":
    main()
