"""Parts of a batch's loss sum to its value and its gradient, however the batch is cut."""

import pytest
import torch

from components.shared.training.loop.batch_loss import BatchLoss


def _spread(outputs: torch.Tensor) -> torch.Tensor:
    """Minus the log of each output's distance to its nearest neighbour, and a batch's deviation."""
    distances = torch.cdist(outputs, outputs) + 10 * torch.eye(len(outputs))
    return -torch.log(distances.amin(dim=1)).mean() + outputs.std()


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1,) * 12])
def test_parts_have_the_value_and_the_gradient_of_the_whole(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs, model = torch.randn(12, 4), torch.nn.Linear(4, 3)
    whole = _spread(model(inputs))
    expected = torch.autograd.grad(whole, list(model.parameters()))

    with torch.no_grad():
        loss = BatchLoss.of(model(inputs), _spread)
    total = torch.zeros(())
    for slots in torch.arange(12).split(list(sizes)):
        part = loss.part(model(inputs[slots]), slots)
        part.backward()
        total += part.detach()

    assert float(total) == pytest.approx(12 * float(whole.detach()), rel=1e-6)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, 12 * gradient)
