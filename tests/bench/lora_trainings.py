"""One LoRA training of the same model on the same batches by four trainers, as each is documented.

`python -m tests.bench.lora_trainings NAME` trains once in a process of its own and prints the peak
of its memory.
"""

import contextlib
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import Dinov2Config, Dinov2Model

from components.shared.contracts.options import LoopConfig
from components.shared.models import adapters
from components.shared.models.classifier import Classifier, Head
from components.shared.training.loop.distributed import World
from components.shared.training.loop.sampler import global_batch
from components.shared.training.session.fit import fit
from components.shared.vision.classifier_spec import ClassifierSpec

STEPS, BATCH = 16, 16
_SIZE, _WIDTH, _RATE, _CLIP = 112, 192, 1e-3, 1.0
_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_N = STEPS * BATCH


class Record:
    """The loss and the start of every step.

    The time between two starts is that of one whole step. `began` has processor time, which does
    not depend on other processes, and elapsed time.
    """

    def __init__(self) -> None:
        self.began: list[tuple[float, float]] = []
        self.losses: list[float] = []
        self._memory = 0

    def __call__(
        self, model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Mean cross-entropy of a batch."""
        if not self.began:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            self._memory = _status("VmRSS")
        self.began.append((time.process_time(), time.perf_counter()))
        loss = F.cross_entropy(model(pixels), labels)
        self.losses.append(float(loss.detach()))
        return loss

    @property
    def seconds(self) -> list[tuple[float, float]]:
        """Processor and elapsed time of single steps, without the first ones."""
        pairs = zip(self.began[3:], self.began[4:], strict=False)
        return [(after[0] - before[0], after[1] - before[1]) for before, after in pairs]

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the training beyond model, data and libraries.

        Exact only for the first training of a process.
        """
        return _status("VmHWM") - self._memory


def model() -> Classifier:
    """Return a DINOv2 of six blocks with LoRA of rank 8 and a new head, always the same weights."""
    torch.manual_seed(0)
    shape = Dinov2Config(
        hidden_size=_WIDTH,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=518,
        patch_size=14,
    )
    backbone = adapters.prepare(Dinov2Model(shape), "lora", rank=8, alpha=16.0)
    spec = ClassifierSpec(("None", "Roadwork"), _SIZE, *_STATISTICS, "dinov2")
    return Classifier(backbone, Head(2 * _WIDTH, 2), spec)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (N, 3, S, S) and labels (N,)."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(_N, 3, _SIZE, _SIZE, generator=generator)
    return pixels, (pixels.mean(dim=(1, 2, 3)) > 0).long()


class Batches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The batches of our sampler, one an item, so that no peer pays for collating."""

    def __init__(self) -> None:
        self.pixels, self.labels = data()

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(global_batch(_N, BATCH, 0, step))
        return self.pixels[rows], self.labels[rows]


def _loader() -> "DataLoader[tuple[torch.Tensor, torch.Tensor]]":
    return DataLoader(Batches(), batch_size=None)


def _optimiser(module: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW in our groups with our schedule: a linear rise from above 0, then half a cosine."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=_RATE)
    n_warmup = round(0.1 * STEPS)

    def rate(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / (n_warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / (STEPS - n_warmup)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate)


def ours() -> Record:
    """`fit`, as every phase calls it."""
    record = Record()

    class Task:
        n_samples = _N
        monitor = "score"

        def __init__(self) -> None:
            self.module: nn.Module = model()
            self.pixels, self.labels = data()

        def loss(
            self,
            model: nn.Module,
            positions: npt.NDArray[np.int64],
            batch_slots: npt.NDArray[np.int64],
            step: int,
        ) -> torch.Tensor:
            rows = torch.from_numpy(positions)
            return record(model, self.pixels[rows], self.labels[rows]) * len(rows)

        def evaluate(self) -> dict[str, float]:
            return {"score": 0.0}

    config = LoopConfig(
        epochs=1,
        learning_rate=_RATE,
        global_batch_size=BATCH,
        weight_decay=0.01,
        warmup_ratio=0.1,
        gradient_clip=_CLIP,
        ema_decay=None,
        seed=0,
    )
    fit(Task(), config, World(0, 1, torch.device("cpu")))
    # The first two steps are rehearsed, to find out whether the batch fits into memory.
    del record.losses[0], record.losses[1], record.began[0], record.began[1]
    return record


def hugging_face() -> Record:
    """transformers' Trainer."""
    from transformers import Trainer, TrainingArguments

    record, module = Record(), model()

    class Peer(Trainer):  # type: ignore[misc]
        def compute_loss(self, model: nn.Module, inputs: Any, **_: Any) -> torch.Tensor:
            return record(model, *inputs)

        def get_train_dataloader(self) -> Any:
            return _loader()

        def _prepare_inputs(self, inputs: Any) -> Any:
            return inputs

    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            max_grad_norm=_CLIP,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Peer(
            model=module, args=arguments, train_dataset=Batches(), optimizers=_optimiser(module)
        )
        with contextlib.redirect_stdout(None):  # it prints its own measurements
            trainer.train()
    return record


def lightning() -> Record:
    """PyTorch Lightning's Trainer."""
    import pytorch_lightning

    record = Record()

    class Peer(pytorch_lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return record(self.model, *batch)

        def configure_optimizers(self) -> Any:
            optimiser, schedule = _optimiser(self)
            return {
                "optimizer": optimiser,
                "lr_scheduler": {"scheduler": schedule, "interval": "step"},
            }

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pytorch_lightning.Trainer(
            max_steps=STEPS,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=_CLIP,
        )
        trainer.fit(Peer(), _loader())
    return record


def accelerated() -> Record:
    """A loop written with accelerate."""
    from accelerate import Accelerator

    record, accelerator, module = Record(), Accelerator(cpu=True), model()
    optimiser, schedule = _optimiser(module)
    module, optimiser, batches, schedule = accelerator.prepare(
        module, optimiser, _loader(), schedule
    )
    module.train()
    for batch in batches:
        optimiser.zero_grad()
        accelerator.backward(record(module, *batch))
        accelerator.clip_grad_norm_(module.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
    return record


TRAININGS: dict[str, Callable[[], Record]] = {
    "ours": ours,
    "Hugging Face Trainer": hugging_face,
    "Lightning": lightning,
    "accelerate": accelerated,
}


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    """The process group that our loop needs."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def main() -> None:
    """Print the peak of one training's memory, in bytes."""
    with one_process():
        print(json.dumps(TRAININGS[sys.argv[1]]().peak_bytes))


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))


if __name__ == "__main__":
    main()
