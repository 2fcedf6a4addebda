"""From margins of views to one margin: reference values, bounds, gradients."""

import dataclasses
import math

import pytest
import torch

from components.shared.contracts.adaptations import AGGREGATIONS
from components.shared.models.aggregation import aggregate, neutral_margin, view_weights
from components.shared.vision.view_spec import ViewSpec

SPEC = ViewSpec(
    grid=3,
    overlap=0.0,
    flips=False,
    size=8,
    aggregation="max",
    top_k=2,
    sharpness=1.0,
    positive_class="Roadwork",
)
# Views that say (None, Roadwork) = these logits.
LOGITS = torch.tensor([[1, -0.5], [3, -3], [-1.2, 1.4], [2.8, -2.6]], dtype=torch.float64)
MARGINS = (LOGITS[:, 1] - LOGITS[:, 0])[None]


def _spec(aggregation: str, **fields: float) -> ViewSpec:
    return dataclasses.replace(SPEC, aggregation=aggregation, **fields)


def _probability(spec: ViewSpec, margins: torch.Tensor = MARGINS) -> float:
    return float(aggregate(margins, spec).sigmoid())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (_spec("max"), 0.93086158),
        (_spec("topk_mean", top_k=2), 0.63413559),
        (_spec("topk_mean", top_k=3), 0.19257984),
        (_spec("topk_mean", top_k=99), 0.07076481),
        (_spec("noisy_or"), 0.94386749),  # 1 - prod(1 - p)
        (_spec("lse", sharpness=1.0), 0.77393292),
        (_spec("lse", sharpness=5.0), 0.91074302),
    ],
)
def test_reference_values(spec: ViewSpec, expected: float) -> None:
    assert _probability(spec) == pytest.approx(expected, abs=1e-8)


def test_a_view_that_is_sure_of_background_never_counts_as_a_find() -> None:
    """A ranking of views by confidence would select the two surest backgrounds: P = 0.0033."""
    assert _probability(_spec("topk_mean", top_k=2)) > 0.6


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_one_view_is_its_own_margin_and_equal_views_agree(aggregation: str) -> None:
    one = torch.tensor([[-30.0], [-0.5], [40.0]])
    attention = torch.ones_like(one)
    torch.testing.assert_close(aggregate(one, _spec(aggregation), attention), one[:, 0])
    if aggregation != "noisy_or":
        many = one.expand(-1, 10)
        torch.testing.assert_close(
            aggregate(many, _spec(aggregation), attention.expand(-1, 10) / 10), one[:, 0]
        )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_extreme_margins_stay_finite_and_shares_are_the_gradient(aggregation: str) -> None:
    spec = _spec(aggregation)
    attention = torch.tensor([[0.2, 0.5, 0.3]]).expand(5, -1).double()
    values = [[-200, -300, -250], [200, -200, 0], [-20, -14, -16], [0.1, -0.2, 0.3], [90, 80, 70]]
    margins = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    total = aggregate(margins, spec, attention)
    total.sum().backward()
    assert torch.isfinite(total).all()
    gradient = margins.grad / margins.grad.sum(dim=1, keepdim=True)  # type: ignore[union-attr,operator]
    torch.testing.assert_close(
        view_weights(margins.detach(), spec, attention), gradient, atol=1e-4, rtol=0
    )
    assert torch.isfinite(aggregate(margins.detach().float(), spec, attention.float())).all()


@pytest.mark.parametrize("aggregation", ["max", "noisy_or", "lse"])
def test_no_further_view_takes_the_margin_below_its_bound(aggregation: str) -> None:
    margins = 4 * torch.randn(
        2000, SPEC.count, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    margins[:1000, 1:] -= 50  # tiles that all say no
    gain = aggregate(margins, _spec(aggregation)) - margins[:, 0]
    bound = _spec(aggregation).lower_bound
    assert bound is not None
    assert float(gain.min()) >= bound - 1e-9
    assert float(gain.min()) == pytest.approx(bound, abs=1e-6)  # and no bound is closer
    assert _spec("topk_mean").lower_bound is None
    assert _spec("attention").lower_bound is None


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_training_starts_undecided(aggregation: str) -> None:
    spec = _spec(aggregation)
    margins = torch.full((1, spec.count), neutral_margin(spec))
    weights = torch.full_like(margins, 1 / spec.count)
    assert float(aggregate(margins, spec, weights)) == pytest.approx(0, abs=1e-5)
    assert math.isfinite(neutral_margin(spec))
