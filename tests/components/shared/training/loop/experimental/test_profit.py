"""PROFIT: by hand on a quadratic, and inside the trainer on any number of processes and
micro-batches.
"""

import copy

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from components.shared.training.loop.distributed import World
from components.shared.training.loop.experimental.profit import ReferenceStep
from components.shared.training.loop.sampler import global_batch
from components.shared.training.loop.trainer import Trainer
from components.shared.training.session.fit import fit
from tests.components.shared.training import toy
from tests.components.shared.training.session.test_fit import launch_toy, weights

H, B = torch.diag(torch.tensor([4.0, 1.0])), torch.tensor([1.0, 1.0])
PROFIT = {"reference_rate": 0.01, "learning_rate": 0.02}


def _step(opposed: bool) -> torch.Tensor:
    """One step from (1, 2) at rate 0.1; where nothing is opposed the main gradient is that of the
    negative loss.
    """
    theta = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimiser = torch.optim.SGD([theta], lr=0.1)
    reference = ReferenceStep([theta], rate=0.01)
    (0.5 * theta @ H @ theta - B @ theta).backward()  # type: ignore[no-untyped-call]
    reference.take()
    torch.testing.assert_close(theta.detach(), torch.tensor([0.97, 1.99]))
    optimiser.zero_grad()
    loss = 0.5 * theta @ H @ theta - B @ theta
    (loss if opposed else -loss).backward()  # type: ignore[no-untyped-call]
    reference.undo()
    optimiser.step()
    return theta.detach()


def test_what_opposes_the_displacement_is_removed() -> None:
    torch.testing.assert_close(_step(True), torch.tensor([1.0009, 1.9973]), rtol=0, atol=1e-6)


def test_a_gradient_along_the_displacement_is_kept_whole() -> None:
    torch.testing.assert_close(_step(False), torch.tensor([1.288, 2.099]), rtol=0, atol=1e-6)


class _Adapted(toy.Toy):
    """A trained map of the inputs below a new last layer, as a backbone below a head."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.body = nn.Linear(5, 5)
        self.fresh: nn.Module = nn.Linear(5, 1)
        self.module = nn.Sequential(self.body, self.fresh)


def test_a_fresh_head_is_trained_as_without_profit(world: World) -> None:
    """The head's gradient is that at the displaced body, whole; the body's is PROFIT's."""
    torch.manual_seed(2)
    task = _Adapted(world)
    twin = copy.deepcopy(task.module)
    batches = [global_batch(task.n_samples, 15, 0, 0, stream=stream) for stream in (1, 0)]

    def gradients(rows: npt.NDArray[np.int64]) -> list[torch.Tensor]:
        loss = (twin(task.inputs[rows])[:, 0] - task.targets[rows]).square().mean()
        return list(torch.autograd.grad(loss, list(twin.parameters())))

    moved = [-0.01 * gradient for gradient in gradients(batches[0])[:2]]
    with torch.no_grad():
        for parameter, change in zip(twin[0].parameters(), moved, strict=True):
            parameter += change
    *body, head_weight, head_bias = gradients(batches[1])
    along = sum(float((g * d).sum()) for g, d in zip(body, moved, strict=True))
    length = sum(float((d * d).sum()) for d in moved)
    assert along < 0
    expected = [g - along / length * d for g, d in zip(body, moved, strict=True)]

    trainer = Trainer(task, toy.config(**PROFIT, gradient_clip=None), world)
    trainer.step(0)
    found = [p.grad for p in task.module.parameters()]
    for ours, theirs in zip(found, [*expected, head_weight, head_bias], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_fresh_head_learns_as_fast_as_without_profit(world: World) -> None:
    """Loss of the first epochs, where a projected head is held back by its own gradient."""
    losses = {}
    for rate in (None, 0.01):
        torch.manual_seed(2)
        task = _Adapted(world)
        task.body.requires_grad_(False)
        config = toy.config(learning_rate=0.02, reference_rate=rate)
        losses[rate] = [row["train/loss"] for row in fit(task, config, world).history]
    assert losses[0.01] == pytest.approx(losses[None], rel=1e-6)


def test_a_step_of_the_trainer_is_profits(world: World) -> None:
    task = toy.Toy(world)
    trainer = Trainer(task, toy.config(**PROFIT, gradient_clip=None, warmup_ratio=0.0), world)
    twin = nn.Linear(5, 1)
    twin.load_state_dict(task.module.state_dict())
    optimiser = torch.optim.AdamW(twin.parameters(), lr=0.02, weight_decay=0.0)
    for step in range(3):
        start = [p.detach().clone() for p in twin.parameters()]
        for stream in (1, 0):
            rows = global_batch(task.n_samples, 15, 0, step, stream=stream)
            optimiser.zero_grad()
            (twin(task.inputs[rows])[:, 0] - task.targets[rows]).square().mean().backward()
            if stream:
                with torch.no_grad():
                    for p in twin.parameters():
                        p -= 0.01 * p.grad
        gradient = torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None])
        moved = torch.cat(
            [(p - s).flatten() for p, s in zip(twin.parameters(), start, strict=True)]
        ).detach()
        gradient -= min(float(gradient @ moved), 0.0) / float(moved @ moved) * moved
        with torch.no_grad():
            for p, s, g in zip(twin.parameters(), start, gradient.split([5, 1]), strict=True):
                p.copy_(s)
                p.grad = g.view_as(p)
        for group in optimiser.param_groups:
            group["lr"] = trainer.learning_rate
        optimiser.step()
        trainer.step(step)
        for ours, theirs in zip(task.module.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_reference_batch_is_another_one() -> None:
    streams = [global_batch(40, 15, 0, 0, stream=stream).tolist() for stream in (0, 1)]
    assert streams[0] != streams[1]
    assert sorted(global_batch(40, 40, 0, 0, stream=1).tolist()) == list(range(40))


def test_micro_batches_give_the_same_weights(world: World) -> None:
    whole, split = (
        weights(toy.train(world, PROFIT | {"micro_batch_size": size})[0]) for size in (None, 4)
    )
    plain = weights(toy.train(world, {"learning_rate": 0.02})[0])
    assert all(torch.allclose(whole[name], split[name], atol=1e-6) for name in whole)
    assert any(not torch.allclose(whole[name], plain[name], atol=1e-4) for name in whole)


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_two_processes_give_the_weights_of_one(
    tmp_path_factory: pytest.TempPathFactory, micro_batch_size: int | None
) -> None:
    changes = PROFIT | {"micro_batch_size": micro_batch_size}
    root = tmp_path_factory.mktemp("profit")
    one, two = (launch_toy(root / str(count), count, changes=changes) for count in (1, 2))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
