"""State of a training between two steps, from which it ends with the very same model.

It is everything that a step reads and that is not derived from (inputs, seed, step): weights, their
average and the best ones, optimiser, schedule, generators of every rank, position in the epoch,
metrics so far. Floating point numbers are tensors, so that they come back bit by bit and may be
NaN; the rest is JSON. Own code, because no library promises a resumed training that ends with the
same bits on any number of processes.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from components.shared.contracts.documents import as_type
from components.shared.contracts.errors import ArtifactError
from components.shared.contracts.listing import first_of
from components.shared.training.loop import rng
from components.shared.training.loop.distributed import World
from components.shared.training.loop.trainer import Trainer


@dataclass
class Position:
    """Position of the loop in a training.

    `losses`: of the finished steps of `epoch`; `best`: weights of the best epoch so far, the latest
    of equal ones; `improved_epoch`: the first of them, from which patience counts.
    """

    best: list[torch.Tensor]
    best_value: float
    best_epoch: int = 0
    improved_epoch: int = 0
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingState:
    """One checkpoint's content: CPU tensors by name, and a JSON document."""

    tensors: dict[str, torch.Tensor]
    document: dict[str, Any]

    @property
    def step(self) -> int:
        """Number of finished optimiser steps."""
        return int(self.document["step"])


@dataclass(frozen=True)
class _Document:
    """The JSON document of a checkpoint."""

    step: int
    epoch: int
    best_epoch: int
    improved_epoch: int
    columns: list[str]
    schedule: dict[str, int]
    micro_batch_size: int
    probes_left: int
    n_processes: int
    device: str
    computation: dict[str, Any]


def capture(trainer: Trainer, position: Position, world: World) -> TrainingState:
    """Return a copy of the complete state.

    Every rank must call it; only the main rank gets the tensors.
    """
    tensors = {"generators": world.gather_rows(rng.pack(world.device)[None], world.size)}
    for group, values in _groups(trainer, position).items():
        tensors |= {
            f"{group}/{name}": value for name, value in zip(trainer.names, values, strict=True)
        }

    tensors |= {f"buffers/{name}": value for name, value in trainer.task.module.named_buffers()}
    for index, entries in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in entries.items()}

    schedule = trainer.schedule.state_dict()
    columns = list(position.history[0]) if position.history else []
    tensors |= {
        "learning_rates": torch.tensor(schedule["_last_lr"], dtype=torch.float64),
        "losses": torch.tensor(position.losses, dtype=torch.float64),
        "history": torch.tensor(
            [[row[c] for c in columns] for row in position.history], dtype=torch.float64
        ),
        "best_value": torch.tensor(position.best_value, dtype=torch.float64),
    }

    document = {
        "step": position.epoch * trainer.steps_per_epoch + len(position.losses),
        "epoch": position.epoch,
        "best_epoch": position.best_epoch,
        "improved_epoch": position.improved_epoch,
        "columns": columns,
        "schedule": {name: schedule[name] for name in ("last_epoch", "_step_count")},
        "micro_batch_size": trainer.micro_batch_size,
        "probes_left": trainer.probes_left,
        "n_processes": world.size,
        "device": world.device.type,
        "computation": trainer.config.computation(),
    }

    # Copies: the next step overwrites the originals while these are being written.
    copies = (
        {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
        if world.is_main
        else {}
    )

    return TrainingState(copies, document)


def restore(state: TrainingState, trainer: Trainer, position: Position, world: World) -> str:
    """Put everything back; returns in words how exact the continuation is.

    Raises ArtifactError where the checkpoint's content is not that of such a training.
    """
    _check(state, trainer, position)
    tensors, document = state.tensors, state.document
    same = (document["n_processes"], document["device"]) == (world.size, world.device.type)
    others = _differences(document["computation"], trainer.config.computation())
    trainer.limit_micro_batch(document["micro_batch_size"])
    # Before the weights and generators: a probe and the warm-up change buffers and draw numbers.
    # After the optimiser, whose state takes memory from them.
    _restore_optimizer(state, trainer)
    trainer.probe_again(document["step"])
    trainer.warm_up_ddp_buckets()

    with torch.no_grad():
        for group, values in _groups(trainer, position).items():
            for name, value in zip(trainer.names, values, strict=True):
                value.copy_(tensors[f"{group}/{name}"])

        for name, value in trainer.task.module.named_buffers():
            value.copy_(tensors[f"buffers/{name}"])

    position.epoch, position.best_epoch = document["epoch"], document["best_epoch"]
    position.improved_epoch = document["improved_epoch"]
    position.losses, position.best_value = tensors["losses"].tolist(), float(tensors["best_value"])
    rows = tensors["history"].tolist()
    position.history = [dict(zip(document["columns"], row, strict=True)) for row in rows]

    trainer.probes_left = document["probes_left"] if same else 2
    if not same:
        before = f"{document['n_processes']} process(es) on {document['device']}"
        return f"equivalent, not identical: it was trained with {before} before"

    rng.restore(tensors["generators"][world.rank], world.device)
    if others:
        return f"equivalent, not identical: it was trained with {others} before"
    if trainer.micro_batch_size != document["micro_batch_size"]:
        return (
            "equivalent, not identical: it was trained with micro-batches of"
            f" {document['micro_batch_size']} before"
        )

    return "identical to an uninterrupted training"


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the options of the computation that had other values before, with these, in words."""
    return ", ".join(f"{name}={before[name]}" for name in now if before.get(name) != now[name])


def _check(state: TrainingState, trainer: Trainer, position: Position) -> None:
    """Raise ArtifactError where documents or tensors are missing or of another shape."""
    where = "state.json of the checkpoint"
    document = as_type(state.document, _Document, where)

    shapes = {
        f"{group}/{name}": tuple(value.shape)
        for group, values in _groups(trainer, position).items()
        for name, value in zip(trainer.names, values, strict=True)
    }
    shapes |= {
        f"buffers/{name}": tuple(value.shape) for name, value in trainer.task.module.named_buffers()
    }
    found = {name: tuple(tensor.shape) for name, tensor in state.tensors.items()}
    wrong = [name for name, shape in shapes.items() if found.get(name) != shape]

    ranks = {"generators": 2, "learning_rates": 1, "losses": 1, "best_value": 0}
    wrong += [name for name, rank in ranks.items() if len(found.get(name, (0,) * 9)) != rank]
    if found.get("history", ())[1:] != ((len(document.columns),) if document.columns else ()):
        wrong.append("history")
    if wrong:
        raise ArtifactError(
            f"the checkpoint of step {document.step} is of another training: {first_of(wrong)}"
            " missing or of another shape; delete it"
        )


def _groups(trainer: Trainer, position: Position) -> dict[str, list[torch.Tensor]]:
    parameters = [parameter.detach() for parameter in trainer.parameters]
    return {"weights": parameters, "average": trainer.average, "best": position.best}


def _restore_optimizer(state: TrainingState, trainer: Trainer) -> None:
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in state.tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            # A tensor of its own: those of a safetensors file share one buffer, at any alignment.
            entries.setdefault(int(index), {})[name] = tensor.clone()

    rates = state.tensors["learning_rates"].tolist()
    optimizer = trainer.optimizer.state_dict()
    groups = [
        group | {"lr": rate} for group, rate in zip(optimizer["param_groups"], rates, strict=True)
    ]
    trainer.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    schedule = state.document["schedule"] | {"_last_lr": rates}
    trainer.schedule.load_state_dict(trainer.schedule.state_dict() | schedule)
