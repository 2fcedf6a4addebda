"""The comparison of new images with a reference: one test decides, the others explain."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.detect_drift.explanations import (
    LabelShift,
    MarginShift,
    OutsideSupport,
    label_shift,
    margin_shift,
    margins_of,
    outside_support,
)
from components.detect_drift.two_sample import (
    ClassifierTest,
    TwoSample,
    classifier_test,
    mmd_test,
    permuted_labels,
    standardised,
)
from components.shared.data.drift_reference import DriftReference
from components.shared.policies.policy import Policy
from components.shared.stats.metrics import Floats


@dataclass(frozen=True)
class Comparison:
    """All tests of n new images against N of the reference.

    Attributes:
        false_alarm_rate: of the decision.
        classifier: the test that decides.
        mmd, margins, labels, support: what explains.
        scores: (n,) float64 of the new images by the cross-fitted classifier.
        new_margins: (n,) float64.
    """

    false_alarm_rate: float
    classifier: ClassifierTest
    mmd: TwoSample
    margins: MarginShift
    labels: LabelShift
    support: OutsideSupport
    scores: Floats
    new_margins: Floats

    @property
    def is_drift(self) -> bool:
        """Whether the classifier test rejects at the false-alarm rate."""
        return self.classifier.p_value <= self.false_alarm_rate

    def driving(self, most: int) -> list[int]:
        """Return the new images that look least like the reference, at most `most`, worst first."""
        found: list[int] = np.argsort(-self.scores, kind="stable")[:most].tolist()
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the part of drift.json about the tests."""
        labels = self.labels
        return {
            "drift": self.is_drift,
            "decided_by": "classifier",
            "false_alarm_rate": self.false_alarm_rate,
            "classifier": {
                "auroc": self.classifier.statistic,
                "p_value": self.classifier.p_value,
            },
            "mmd": {"statistic": self.mmd.statistic, "p_value": self.mmd.p_value},
            "margins": vars(self.margins),
            "label_shift": {
                "outcomes": list(labels.outcomes),
                "reference": list(labels.reference),
                "decided": list(labels.decided),
                "estimated": None if labels.estimated is None else list(labels.estimated),
                "interval_95": None
                if labels.interval_95 is None
                else [list(bounds) for bounds in labels.interval_95],
                "reason": labels.reason or None,
            },
            "outside_support": {
                "share": self.support.share,
                "expected": self.support.expected,
                "interval_95": list(self.support.interval_95),
                "p_value": self.support.p_value,
            },
        }


def compare(
    reference: DriftReference,
    policy: Policy,
    features: npt.NDArray[np.floating],
    logits: npt.NDArray[np.floating],
    *,
    false_alarm_rate: float,
    n_permutations: int,
    seed: int,
) -> Comparison:
    """Compare new images, one of each group, with the reference.

    Args:
        reference: of N images.
        policy: of the bundle.
        features: (n, 2h) of the new images, rounded as the reference's are.
        logits: (n, C) of the new images before calibration.
        false_alarm_rate: of the decision.
        n_permutations: of the groups.
        seed: of folds, permutations and bootstrap.
    """
    is_new = np.repeat([False, True], [len(reference.features), len(features)])
    values = standardised(np.concatenate([reference.features, features]).astype(np.float32))
    labels = permuted_labels(is_new, n_permutations, seed)
    classifier = classifier_test(values, labels, seed)
    new_margins = margins_of(policy, logits)

    return Comparison(
        false_alarm_rate=false_alarm_rate,
        classifier=classifier,
        mmd=mmd_test(values, labels),
        margins=margin_shift(margins_of(policy, reference.logits), new_margins),
        labels=label_shift(policy, reference, logits, seed),
        support=outside_support(reference, features),
        scores=classifier.scores[is_new],
        new_margins=new_margins,
    )
