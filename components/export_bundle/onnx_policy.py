"""A policy as a module whose graph decides as `Policy` does, in float64 from the logits on.

A threshold is compared in the precision in which it was fitted: in float32 an image could fall on
its other side. Every function has its counterpart in components/shared/policies/policy.py and
components/shared/calibration, and none knows a library of ONNX.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from components.shared.calibration.binning import Histogram, Isotonic
from components.shared.calibration.calibrator import EPSILON, Calibrator
from components.shared.calibration.dirichlet import Beta, Dirichlet
from components.shared.calibration.linear import Platt, Temperature, VectorScaling
from components.shared.policies.policy import GatePolicy, Policy, ScrcPolicy

# A fitted bound is the confidence of an image, and of all images on a step of a calibrator that is
# a staircase: where it is reached but for the rounding of float64, it is reached.
_ROUNDING = 1e-9


class Decided(NamedTuple):
    """What a policy makes of N images, for K outcomes.

    Attributes:
        margin: (N,) float64 calibrated log-odds: of the positive class; of a multiclass task, of
            the most probable class against all others.
        probabilities: (N, K) float64.
        decision: (N,) int64 codes: the outcome, K where the policy defers, K + 1 where it answers
            with several.
        members: (N, K) bool, the outcomes that an answer names.
    """

    margin: torch.Tensor
    probabilities: torch.Tensor
    decision: torch.Tensor
    members: torch.Tensor


class PolicyModule(nn.Module):
    """A policy's calibrator, thresholds and answers."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, logits: torch.Tensor, gate: torch.Tensor | None = None) -> Decided:
        """Decide on logits (N, C) float64, and raw gate scores (N,) for a gate."""
        policy, positive = self.policy, self.policy.outcomes.positive
        calibrated = _calibrated(policy.calibrator, logits)
        if positive is None:
            decision = calibrated.argmax(dim=1)
            margin = _top_log_odds(calibrated, decision)
            probabilities = calibrated.log_softmax(dim=1).exp()
            confidence = margin
        else:
            margin = _class_log_odds(calibrated, positive)
            decision = (margin > _constant(policy.threshold_margin + _ROUNDING)).long()
            probabilities = torch.stack([torch.sigmoid(-margin), torch.sigmoid(margin)], dim=1)
            confidence = (margin - _constant(policy.threshold_margin)).abs()

        n_outcomes = len(policy.outcomes.names)
        members = decision[:, None] == torch.arange(n_outcomes)
        if isinstance(policy, ScrcPolicy) and policy.single_from is not None:
            members = members | (probabilities >= _constant(1 - policy.single_from - _ROUNDING))

        several = members.sum(dim=1) > 1
        code = torch.where(several, n_outcomes + 1, decision)
        answers = _answers(policy, confidence, decision, gate)
        if answers is not None:
            code = torch.where(answers, code, n_outcomes)
        return Decided(margin, probabilities, code, members)


def _answers(
    policy: Policy, confidence: torch.Tensor, decision: torch.Tensor, gate: torch.Tensor | None
) -> torch.Tensor | None:
    """Return (N,) bool, False where the policy defers; None for one that never does."""
    if isinstance(policy, GatePolicy):
        assert gate is not None, "a gate policy needs the gate's scores"
        confidence = _constant(policy.gate_slope) * gate.double() + _constant(policy.gate_intercept)
        return confidence >= _constant(policy.answer_from - _ROUNDING)
    if isinstance(policy, ScrcPolicy):
        bounds = [math.inf if b is None else b - _ROUNDING for b in policy.answer_from]
        return confidence >= _constant(bounds)[decision]
    if policy.outcomes.positive is not None:
        return None
    return confidence >= _constant(policy.threshold_margin - _ROUNDING)


def _calibrated(calibrator: Calibrator | None, x_NC: torch.Tensor) -> torch.Tensor:
    """Return (N, C) log-probabilities, or the logits where there is no calibrator."""
    match calibrator:
        case None:
            return x_NC
        case Temperature(temperature=temperature):
            return (x_NC / _constant(temperature)).log_softmax(dim=1)
        case Platt(slope=slopes, intercept=intercepts):
            margins = [
                _constant(slope) * _class_log_odds(x_NC, k) + _constant(intercept)
                for k, slope, intercept in zip(_classes(slopes), slopes, intercepts, strict=True)
            ]
            return _log_probabilities_of_margins(margins)
        case VectorScaling(scale=scale, offset=offset):
            return (x_NC * _constant(scale) + _constant(offset)).log_softmax(dim=1)
        case Beta(a=a, b=b, c=c):
            margins = [_beta(x_NC, k, *abc) for k, *abc in zip(_classes(a), a, b, c, strict=True)]
            return _log_probabilities_of_margins(margins)
        case Dirichlet(weights=weights, intercept=intercept):
            log_p = x_NC.log_softmax(dim=1)
            return (log_p @ _constant(weights).T + _constant(intercept)).log_softmax(dim=1)
        case Isotonic(knots=knots, values=values):
            return _log_probabilities_of(
                [
                    _interpolated(_class_log_odds(x_NC, k), *row)
                    for k, *row in zip(_classes(knots), knots, values, strict=True)
                ]
            )
        case Histogram(frequencies=frequencies):
            return _log_probabilities_of(
                [
                    _looked_up(_class_log_odds(x_NC, k), row)
                    for k, row in zip(_classes(frequencies), frequencies, strict=True)
                ]
            )
    raise TypeError(f"no graph for the calibrator {calibrator.NAME!r}")


def _classes(rows: Sequence[object]) -> Sequence[int]:
    """Return the class of each row of a calibrator: one row is of class 1 of two."""
    return [1] if len(rows) == 1 else range(len(rows))


def _constant(values: float | Sequence[object]) -> torch.Tensor:
    """Return a float64 tensor: the exporter rounds a Python number to float32."""
    return torch.tensor(values, dtype=torch.float64)


def _class_log_odds(x_NC: torch.Tensor, k: int) -> torch.Tensor:
    others = torch.cat([x_NC[:, :k], x_NC[:, k + 1 :]], dim=1)
    return x_NC[:, k] - others.logsumexp(dim=1)


def _top_log_odds(x_NC: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Return (N,) the log-odds of each row's class `top` (N,), its largest, against all others."""
    is_top = top[:, None] == torch.arange(x_NC.shape[1])
    others = x_NC.masked_fill(is_top, -math.inf)
    return x_NC.amax(dim=1) - others.logsumexp(dim=1)


def _log_probabilities_of_margins(margins: Sequence[torch.Tensor]) -> torch.Tensor:
    if len(margins) == 1:
        return torch.stack([torch.zeros_like(margins[0]), margins[0]], dim=1).log_softmax(dim=1)
    return torch.stack([_log_sigmoid(margin) for margin in margins], dim=1).log_softmax(dim=1)


def _log_sigmoid(margin: torch.Tensor) -> torch.Tensor:
    """Return ln sigmoid(margin) without overflow, of operators that onnxruntime has in float64."""
    return margin.clamp(max=0) - (1 + (-margin.abs()).exp()).log()


def _beta(x_NC: torch.Tensor, k: int, a: float, b: float, c: float) -> torch.Tensor:
    log_p = x_NC.log_softmax(dim=1)
    others = torch.cat([log_p[:, :k], log_p[:, k + 1 :]], dim=1)
    return _constant(a) * log_p[:, k] - _constant(b) * others.logsumexp(dim=1) + _constant(c)


def _interpolated(
    margin: torch.Tensor, knots: Sequence[float], values: Sequence[float]
) -> torch.Tensor:
    """Return the values (N,) of a piecewise linear function at margins (N,), as `numpy.interp`."""
    x, y = _constant(knots), _constant(values)
    if len(knots) == 1:
        return y.expand(len(margin))
    below = (margin[:, None] >= x).sum(dim=1)
    left = (below - 1).clamp(0, len(knots) - 2)
    width = (x[1:] - x[:-1]).clamp(min=torch.finfo(torch.float64).tiny)
    slope = (y[1:] - y[:-1]) / width
    inside = slope[left] * (margin - x[left]) + y[left]
    inside = torch.where(below == 0, y[0], inside)
    return torch.where(below == len(knots), y[-1], inside)


def _looked_up(margin: torch.Tensor, frequencies: Sequence[float]) -> torch.Tensor:
    """Return the frequency (N,) of each margin's bin of probability, (lo, hi]."""
    n_bins = len(frequencies)
    bins = (torch.sigmoid(margin) * n_bins).ceil().long() - 1
    return _constant(frequencies)[bins.clamp(0, n_bins - 1)]


def _log_probabilities_of(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return (N, C) normalised log-probabilities of P(class 1), or of P(class) for each class."""
    columns = list(probabilities)
    if len(columns) == 1:
        columns = [1 - columns[0], columns[0]]
    clipped = torch.stack(columns, dim=1).clamp(EPSILON, 1 - EPSILON)
    return (clipped / clipped.sum(dim=1, keepdim=True)).log()
