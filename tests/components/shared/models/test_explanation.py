"""A margin is the sum of its parts, and a part is what removing the token changes."""

import dataclasses

import pytest
import torch

from components.shared.models.aggregation import aggregate
from components.shared.models.backbone import n_prefix_tokens, pool_tokens
from components.shared.models.classifier import BagHead, Classifier, new_head
from components.shared.models.explanation import LogitMap, MarginParts, split_margins
from components.shared.vision.classifier_spec import ClassifierSpec
from components.shared.vision.view_spec import ViewSpec
from tests.bundles import SIZE, random_classifier

ONE = ("None", "Roadwork")
MANY = ("stop", "yield", "bus", "tram")
VIEWS = ViewSpec(
    grid=2,
    overlap=0.1,
    flips=True,
    size=28,
    aggregation="max",
    top_k=3,
    sharpness=1.0,
    positive_class="Roadwork",
)


def _classifier(names: tuple[str, ...], family: str, views: ViewSpec | None = None) -> Classifier:
    classifier = random_classifier(family, names)
    if views is None:
        return classifier
    spec: ClassifierSpec = dataclasses.replace(classifier.spec, views=views)
    head = new_head(classifier.head.linear.in_features, spec)
    torch.nn.init.normal_(head.linear.weight, std=3.0)
    return Classifier(classifier.backbone, head, spec).eval()


def _tokens(classifier: Classifier, count: int = 5) -> torch.Tensor:
    views = classifier.spec.views
    shape = (count, 3, SIZE, SIZE) if views is None else (count, views.count, 3, 28, 28)
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        return classifier.tokens(torch.randn(shape, generator=generator))


def _log_odds(logits: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """(B,) log p_k - log sum of the others' p."""
    log_p, rows = logits.double().log_softmax(dim=1), torch.arange(len(k))
    others = log_p.clone()
    others[rows, k] = -torch.inf
    return log_p[rows, k] - others.logsumexp(dim=1)


@pytest.mark.parametrize("family", ["dinov2", "dinov2_with_registers", "vit"])
@pytest.mark.parametrize("names", [ONE, MANY])
@pytest.mark.parametrize("with_reference", [False, True])
def test_the_parts_sum_to_the_margin(
    family: str, names: tuple[str, ...], with_reference: bool
) -> None:
    classifier = _classifier(names, family)
    tokens, k = _tokens(classifier), torch.tensor([0, 1, 1, 0, 1])
    features = pool_tokens(classifier.backbone, tokens)
    reference = features[0].double() if with_reference else None
    parts = split_margins(classifier, tokens, k, reference=reference)
    expected = _log_odds(classifier.head(features), k)
    torch.testing.assert_close(parts.margin, expected, rtol=1e-5, atol=1e-5)
    if with_reference:  # of the reference itself, nothing is left for the tokens
        assert abs(float(parts.cls[0])) < 1e-5
        assert abs(float(parts.patches[0].sum())) < 1e-5


def test_calibrator_threshold_and_the_order_of_classes_are_in_the_parts() -> None:
    classifier = _classifier(MANY, "dinov2")
    tokens, k = _tokens(classifier), torch.tensor([2] * 5)
    scale = torch.tensor([0.5, 2.0, 1.5, 1.0], dtype=torch.float64)
    offset = torch.tensor([0.1, -3.0, 0.7, 0.0], dtype=torch.float64)
    order = torch.tensor([3, 0, 2, 1])
    parts = split_margins(classifier, tokens, k, logit_map=LogitMap(scale, offset, order))
    logits = classifier.head(pool_tokens(classifier.backbone, tokens)).double()
    expected = _log_odds(logits[:, order] * scale + offset, k)
    torch.testing.assert_close(parts.margin, expected, rtol=1e-5, atol=1e-5)


def _without_patch(classifier: Classifier, tokens: torch.Tensor, number: int) -> torch.Tensor:
    """(B, 2h) features where one patch is left out of the mean, the others' sum over P kept."""
    first = n_prefix_tokens(classifier.backbone)
    patches = tokens[:, first:].double()
    kept = torch.cat([patches[:, :number], patches[:, number + 1 :]], dim=1)
    return torch.cat([tokens[:, 0].double(), kept.sum(dim=1) / patches.shape[1]], dim=1)


@pytest.mark.parametrize("family", ["dinov2", "dinov2_with_registers"])
def test_a_part_is_what_the_removal_of_the_token_changes(family: str) -> None:
    """By finite removal, which knows nothing of the decomposition; exact for two classes."""
    classifier = _classifier(ONE, family)
    tokens, k = _tokens(classifier), torch.tensor([1] * 5)
    parts = split_margins(classifier, tokens, k)
    assert parts.patches.shape == (5, 4, 4)
    weight = classifier.head.linear.weight.detach().double()
    bias = classifier.head.linear.bias.detach().double()
    for number in (0, 6, 15):
        left = _log_odds(_without_patch(classifier, tokens, number) @ weight.T + bias, k)
        row, column = divmod(number, 4)
        torch.testing.assert_close(
            parts.margin - left, parts.patches[:, row, column], rtol=1e-5, atol=1e-5
        )


def test_parts_equal_the_gradient_times_the_token() -> None:
    """Also of several classes, where the log-odds bend: the parts are those of its tangent."""
    classifier = _classifier(MANY, "dinov2_with_registers")
    tokens, k = _tokens(classifier), torch.tensor([0, 1, 2, 3, 1])
    parts = split_margins(classifier, tokens, k)
    given = tokens.clone().double().requires_grad_(True)
    features = pool_tokens(classifier.backbone, given)
    linear = classifier.head.linear
    logits = features @ linear.weight.detach().double().T + linear.bias.detach().double()
    (gradient,) = torch.autograd.grad(_log_odds(logits, k).sum(), given)
    product = (gradient * given).sum(dim=-1).detach()
    torch.testing.assert_close(product[:, 0], parts.cls, rtol=1e-5, atol=1e-5)
    first = n_prefix_tokens(classifier.backbone)
    torch.testing.assert_close(product[:, 1:first], torch.zeros(5, first - 1).double())
    torch.testing.assert_close(product[:, first:], parts.patches.flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["max", "topk_mean", "lse", "noisy_or", "attention"])
@pytest.mark.parametrize("names", [ONE, MANY])
def test_of_several_views_the_decisive_one_is_split(
    aggregation: str, names: tuple[str, ...]
) -> None:
    positive = "Roadwork" if names is ONE else None
    views = dataclasses.replace(VIEWS, aggregation=aggregation, positive_class=positive)
    classifier = _classifier(names, "dinov2", views)
    tokens, k = _tokens(classifier), torch.ones(5, dtype=torch.int64)
    parts: MarginParts = split_margins(classifier, tokens, k)

    features = pool_tokens(classifier.backbone, tokens)
    head = classifier.head
    margins = head.margins(features) if names is ONE else head.margins(features)[..., 1]
    rows = torch.arange(5)
    torch.testing.assert_close(
        parts.margin, margins[rows, parts.view].double(), rtol=1e-5, atol=1e-5
    )
    # The weight is the derivative of the image's margin by that view's.
    moved = margins.clone().detach().requires_grad_(True)
    attention = None if head.attention is None else head.attention(features).detach()
    (gradient,) = torch.autograd.grad(aggregate(moved, views, attention).sum(), moved)
    share = gradient / gradient.sum(dim=1, keepdim=True)
    torch.testing.assert_close(parts.weight, share[rows, parts.view], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.weight, share.amax(dim=1), rtol=1e-4, atol=1e-5)
    if aggregation == "max":
        assert torch.equal(parts.view, margins.argmax(dim=1))


def test_the_other_class_has_the_opposite_margin() -> None:
    classifier = _classifier(ONE, "dinov2", VIEWS)
    assert isinstance(classifier.head, BagHead)
    tokens = _tokens(classifier)
    positive = split_margins(classifier, tokens, torch.ones(5, dtype=torch.int64))
    negative = split_margins(classifier, tokens, torch.zeros(5, dtype=torch.int64))
    assert torch.equal(positive.view, negative.view)
    torch.testing.assert_close(positive.patches, -negative.patches)


def test_two_of_several_classes_are_compared() -> None:
    classifier = _classifier(MANY, "dinov2")
    tokens, k = _tokens(classifier), torch.tensor([0, 1, 2, 3, 1])
    against = torch.tensor([1, 0, 3, 0, 2])
    parts = split_margins(classifier, tokens, k, against=against)
    logits = classifier.head(pool_tokens(classifier.backbone, tokens)).double()
    rows = torch.arange(5)
    expected = logits[rows, k] - logits[rows, against]
    torch.testing.assert_close(parts.margin, expected, rtol=1e-5, atol=1e-5)
