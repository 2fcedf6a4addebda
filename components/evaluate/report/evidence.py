"""What in a hard example spoke for the wrong answer: the parts of its margin, for the report."""

from dataclasses import dataclass

import numpy as np

from components.shared.contracts.outcomes import Outcomes
from components.shared.data.contribution_colours import encode_overlay, largest
from components.shared.data.margin_parts import MarginParts
from components.shared.stats.metrics import Floats


@dataclass(frozen=True)
class Evidence:
    """The parts of a margin, in log-odds before calibration.

    Attributes:
        speaks_for: Name of what orange patches speak for.
        overlay: PNG of one pixel for each patch.
        box: (left, top, side) of what the overlay covers, in percent of the image's side.
        end: The largest size of one patch's part, the end of the colours.
        patches: The sum of the patches' parts.
        cls: The part of the CLS token.
        cls_share: The CLS token's share of both, 0 to 1.
    """

    speaks_for: str
    overlay: bytes
    box: tuple[float, float, float]
    end: float
    patches: float
    cls: float
    cls_share: float


def evidence_of(
    parts: MarginParts | None, logits: Floats, label: int, decision: int, outcomes: Outcomes
) -> Evidence | None:
    """Return the evidence of an error; None where the parts are not about it.

    They are of another model where a gate changed the classifier, which the margin shows, and of
    another error where the calibrator ranks the wrong classes otherwise. Of a binary task they
    speak for the positive class, whichever error it is; of a multiclass one for the decided class.

    Args:
        parts: Of the image's most probable wrong class against its true one; None without any.
        logits: (C,) of the image, that the policy decided on.
        label: Index of its true class.
        decision: Index of the outcome that was decided for.
        outcomes: Of the policy.
    """
    if parts is None or _outcome(parts.speaks_for, outcomes) != decision:
        return None
    if parts.margin != float(logits[parts.speaks_for]) - float(logits[label]):
        return None

    if outcomes.positive is not None and decision == 0:
        parts = parts.negated()
    left, top, side = (100 * length for length in parts.box)
    return Evidence(
        speaks_for=outcomes.names[decision if outcomes.positive is None else 1],
        overlay=encode_overlay(parts.patches, parts.strength),
        box=(left, top, side),
        end=largest(parts.patches),
        patches=float(np.sum(parts.patches)),
        cls=parts.cls,
        cls_share=parts.cls_share,
    )


def _outcome(k: int, outcomes: Outcomes) -> int:
    """Return the index of a class's outcome."""
    return k if outcomes.positive is None else int(k == outcomes.positive)
