"""What else differs between reference and new images: it explains an alarm, and decides nothing.

Margins, the share of each outcome by black-box shift estimation, and how many images lie outside
the support of the training data.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.shared.contracts.outcomes import Outcomes
from components.shared.contracts.random_streams import DriftStream
from components.shared.data.drift_reference import DriftReference
from components.shared.policies.policy import Policy
from components.shared.stats.jackknife import clopper_pearson
from components.shared.stats.metrics import Floats, Integers

_N_NEIGHBOURS = 5
# Of the reference; with 16 images already the largest distance of all marks it.
OUTSIDE_QUANTILE = 0.95
_N_BOOTSTRAP = 1000
# Of the confusion matrix: beyond it, noise of a hundredth moves the estimated shares by a tenth.
_MOST_CONDITION = 10.0


@dataclass(frozen=True)
class MarginShift:
    """Two-sample Kolmogorov-Smirnov test of the margins.

    statistic: largest difference of the distribution functions; reference and new: median margins.
    """

    statistic: float
    p_value: float
    reference: float
    new: float


@dataclass(frozen=True)
class LabelShift:
    """Estimated share of each outcome among new groups, under the hypothesis of label shift.

    Attributes:
        outcomes: their names.
        reference: shares in the reference.
        decided: how often the policy decides for each among the new.
        estimated: shares among the new; None where they cannot be estimated.
        interval_95: lower and upper ends of each, by bootstrap over groups of both.
        reason: why there is no estimate.
    """

    outcomes: tuple[str, ...]
    reference: tuple[float, ...]
    decided: tuple[float, ...]
    estimated: tuple[float, ...] | None = None
    interval_95: tuple[tuple[float, float], ...] | None = None
    reason: str = ""


@dataclass(frozen=True)
class OutsideSupport:
    """How many new images are further from TRAIN than nearly all of the reference are.

    Attributes:
        share: of the new images, of which `expected` lie outside without drift.
        expected: 1 - OUTSIDE_QUANTILE.
        interval_95: of the share, Clopper-Pearson over groups.
        p_value: of the hypothesis that distances are no larger than the reference's
            (Mann-Whitney, one-sided).
        outside: (n,) bool of each new image.
        quantile: (n,) fraction of the reference that is nearer to TRAIN than each new image.
    """

    share: float
    expected: float
    interval_95: tuple[float, float]
    p_value: float
    outside: npt.NDArray[np.bool_]
    quantile: Floats


def margins_of(policy: Policy, logits: npt.NDArray[np.floating]) -> Floats:
    """Return (n,) the margin of the positive class; of a multiclass task the confidence."""
    if policy.outcomes.positive is None:
        return Policy.confidence(policy, logits)  # a gate has no scores of the reference
    return policy.margin(logits)


def margin_shift(reference: Floats, new: Floats) -> MarginShift:
    """Compare the margins (n,) and (m,) of one image of each group."""
    from scipy.stats import ks_2samp

    found = ks_2samp(reference, new)
    return MarginShift(
        float(found.statistic),
        float(found.pvalue),
        float(np.median(reference)),
        float(np.median(new)),
    )


def label_shift(
    policy: Policy, reference: DriftReference, logits: npt.NDArray[np.floating], seed: int
) -> LabelShift:
    """Estimate the shares of the outcomes from the policy's decisions alone.

    Black-box shift estimation (Lipton, Wang and Smola, ICML 2018): if only the shares of the
    outcomes have changed, and not how an outcome looks, the shares of the decisions are the
    reference's confusion matrix times the ratios of new to old shares.

    Args:
        policy: of the bundle.
        reference: its drift reference, of N images.
        logits: (n, C) of the new images.
        seed: of the bootstrap.
    """
    outcomes = policy.outcomes
    count = len(outcomes.names)
    truth = _truth(outcomes, reference.labels)
    joint = (
        np.eye(count)[policy.decision(reference.logits)][:, :, None]
        * (np.eye(count)[truth][:, None, :])
    )  # (N, decision, truth)
    decided = np.eye(count)[policy.decision(logits)]  # (n, decision)
    confusion, shares = joint.mean(axis=0), joint.mean(axis=0).sum(axis=0)
    found = LabelShift(outcomes.names, tuple(shares.tolist()), tuple(decided.mean(axis=0).tolist()))

    absent = [name for name, share in zip(outcomes.names, shares, strict=True) if share == 0]
    if absent:
        return _without(found, f"the reference has no image of {', '.join(absent)}")
    # Columns divided by the shares are how often each outcome is decided for as each.
    condition = float(np.linalg.cond(confusion / shares))
    if not condition <= _MOST_CONDITION:
        return _without(
            found,
            "the decisions do not tell the outcomes apart well enough (condition number"
            f" {condition:.3g} of the confusion matrix, limit {_MOST_CONDITION:g})",
        )

    # Rows drawn with replacement are counts of a multinomial distribution.
    rng = np.random.default_rng([seed, len(decided), DriftStream.LABEL_SHIFT])
    joints = rng.multinomial(len(joint), confusion.ravel(), _N_BOOTSTRAP) / len(joint)
    rates = rng.multinomial(len(decided), decided.mean(axis=0), _N_BOOTSTRAP) / len(decided)
    draws = _estimated(joints.reshape(-1, count, count), rates)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    estimated = _estimated(confusion, decided.mean(axis=0))

    return LabelShift(
        found.outcomes,
        found.reference,
        found.decided,
        tuple(estimated.tolist()),
        tuple(zip(low.tolist(), high.tolist(), strict=True)),
    )


def outside_support(
    reference: DriftReference, features: npt.NDArray[np.floating]
) -> OutsideSupport:
    """Compare distances to the nearest images of TRAIN, in units of TRAIN's deviations.

    The reference's images were not trained on either, so the limit is a quantile of theirs.

    Args:
        reference: of N images of VAL_CALIB and M of TRAIN.
        features: (n, 2h) of the new images.
    """
    from scipy.stats import mannwhitneyu

    held_out = _distances(reference, reference.features)
    new = _distances(reference, features)
    quantile = np.searchsorted(np.sort(held_out), new, side="right") / len(held_out)
    outside = new > np.quantile(held_out, OUTSIDE_QUANTILE, method="higher")
    share = float(outside.mean())

    return OutsideSupport(
        share=share,
        expected=1 - OUTSIDE_QUANTILE,
        interval_95=clopper_pearson(share, len(outside)),
        p_value=float(mannwhitneyu(new, held_out, alternative="greater").pvalue),
        outside=outside,
        quantile=quantile,
    )


def _distances(reference: DriftReference, features: npt.NDArray[np.floating]) -> Floats:
    """Return (n,) float64, the mean distance to the nearest images of TRAIN."""
    from sklearn.neighbors import NearestNeighbors

    support = reference.support.astype(np.float64)
    mean, deviation = support.mean(axis=0), support.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1)
    n_neighbours = min(_N_NEIGHBOURS, len(support))
    search = NearestNeighbors(n_neighbors=n_neighbours).fit((support - mean) / scale)
    distances, _ = search.kneighbors((features.astype(np.float64) - mean) / scale)
    return np.asarray(distances.mean(axis=1))


def _truth(outcomes: Outcomes, labels: Integers) -> Integers:
    """Return (n,) the number of the true outcome of each label."""
    if outcomes.positive is None:
        return labels
    return np.asarray(labels == outcomes.positive, dtype=np.int64)


def _estimated(confusion: Floats, decided: Floats) -> Floats:
    """Return (..., K) shares of the outcomes.

    Args:
        confusion: (..., K, K) joint shares of decision and truth.
        decided: (..., K) shares of the decisions among the new images.
    """
    shares = confusion.sum(axis=-2)
    ratios = (np.linalg.pinv(confusion) @ decided[..., None])[..., 0]
    estimated = np.maximum(ratios, 0) * shares
    total = estimated.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(total > 0, estimated / np.where(total > 0, total, 1), shares))


def _without(found: LabelShift, reason: str) -> LabelShift:
    return LabelShift(found.outcomes, found.reference, found.decided, reason=reason)
