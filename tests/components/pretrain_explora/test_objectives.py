"""Objectives against worked numbers, and random draws as functions of the batch slot."""

import math

import pytest
import torch

from components.pretrain_explora import objectives
from components.shared.training.loop.distributed import World

WORLD = World(0, 1, torch.device("cpu"))


def test_sinkhorn_gives_every_prototype_its_share_however_the_teacher_leans() -> None:
    logits = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) * 0.2
    logits[:, 0] += 0.7  # plain softmax would give nearly all to the first
    targets = objectives.sinkhorn(logits, 0.07, WORLD)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(64))
    assert (targets.mean(dim=0) - 1 / 8).abs().max() < 0.02
    assert torch.softmax(logits / 0.07, dim=1)[:, 0].mean() > 0.9


def test_sinkhorn_of_two_by_two() -> None:
    # Rows and columns of equal weight and the odds ratio of [[1, 1/4], [1/2, 1/4]], which is 2: x /
    # (1 - x) = sqrt(2).
    logits = 1 + torch.log(torch.tensor([[1.0, 0.25], [0.5, 0.25]]))
    expected = torch.tensor([[0.5857865, 0.4142135], [0.4142135, 0.5857865]])
    torch.testing.assert_close(objectives.sinkhorn(logits, 1.0, WORLD), expected, rtol=0, atol=2e-3)


def test_the_running_centre_is_taken_off_before_it_moves() -> None:
    centre = torch.tensor([0.1, 0.0])
    logits = torch.tensor([[0.3, 0.2], [0.5, 0.0]])
    targets = objectives.centered(logits, centre, 0.1, WORLD)
    torch.testing.assert_close(
        targets, torch.softmax((logits - torch.tensor([0.1, 0.0])) / 0.1, dim=1)
    )
    torch.testing.assert_close(centre, torch.tensor([0.9 * 0.1 + 0.1 * 0.4, 0.1 * 0.1]))


def test_cross_entropy_is_least_where_the_student_agrees() -> None:
    targets = torch.tensor([[0.9, 0.1]])
    agreeing = torch.log(targets) * objectives.STUDENT_TEMPERATURE
    entropy = -(targets * targets.log()).sum()
    torch.testing.assert_close(objectives.cross_entropy(agreeing, targets), entropy[None])
    assert objectives.cross_entropy(agreeing.flip(1), targets) > entropy


def test_koleo_is_minus_the_log_of_the_distance_to_the_nearest_other() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    loss = objectives.koleo(points)
    torch.testing.assert_close(loss, -torch.log(torch.tensor([2.0] * 3)) / 2, rtol=0, atol=1e-6)
    assert objectives.koleo(points[:1]).tolist() == [0.0]


def test_koleos_gradient_flows_through_the_neighbour() -> None:
    """On the circle, d = 2 sin(a / 2); each of two points moves by its own and the other's loss."""
    angles = torch.tensor([0.0, 1.0], requires_grad=True)
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    (gradient,) = torch.autograd.grad(objectives.koleo(points).mean(), angles)
    slope = math.cos(0.5) / (2 * math.sin(0.5))  # of log d; half of it without the neighbour
    assert gradient.tolist() == pytest.approx([slope, -slope], rel=1e-5)


def test_koleo_pushes_neighbours_apart() -> None:
    angles = torch.linspace(0, 0.1, 5)
    for _ in range(200):
        angles.requires_grad_(True)
        points = torch.stack([angles.cos(), angles.sin()], dim=1)
        (gradient,) = torch.autograd.grad(objectives.koleo(points).sum(), angles)
        angles = (angles - 0.01 * gradient.clamp(-5, 5)).detach()
    assert angles.sort().values.diff().min() > 0.1
