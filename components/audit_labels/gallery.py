"""The HTML report of an audit: thumbnails of what to look at, worst first, in one file.

The number of thumbnails is bounded, whatever is found; the tables have the rest. Text is escaped,
and the page contains neither scripts nor links: its Content-Security-Policy allows none.
"""

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from components.audit_labels.audited import Audited
from components.audit_labels.cross_fit import CrossFitted
from components.audit_labels.findings import Findings
from components.shared.contracts.pages import templates
from components.shared.data.val_test_images import encode_thumbnail

# Sections that explain have fewer pictures than the suspects, which a person goes through.
_OUTLIERS, _PAIRS, _CLUSTERS, _OF_CLUSTER = 24, 12, 6, 6
_MEAGRE = 0.1  # a head that explains less of the log-loss than this hardly knows the classes


@dataclass(frozen=True)
class Picture:
    """One image of the report.

    Attributes:
        sample_id: Of the image.
        path: Of its file.
        group: Of the image.
        split: TRAIN or VAL_SELECT.
        label: Name of the given class.
        suggested: Name of the most probable class.
        score: Probability of the given class.
        outlier_score: In [0, 1].
        base64: JPEG of at most 224 pixels a side.
        side: Width and height of it, in pixels.
    """

    sample_id: str
    path: str
    group: str
    split: str
    label: str
    suggested: str
    score: float
    outlier_score: float
    base64: str
    side: int


@dataclass(frozen=True)
class ClusterRow:
    """A cluster, with some of its images, the worst first."""

    number: int
    n_images: int
    n_groups: int
    score: float
    interval_95: tuple[float, float] | None
    is_worse: bool
    pictures: Sequence[Picture]


def render(
    audited: Audited,
    fitted: CrossFitted | None,
    findings: Findings | None,
    summary: Mapping[str, Any],
    n_shown: int,
) -> str:
    """Return the HTML document; the same data give the same bytes.

    Args:
        audited: The images.
        fitted: The head's predictions; None where nothing could be audited.
        findings: None where nothing could be audited.
        summary: Document of audit.json.
        n_shown: Most suspects that are shown.
    """
    context: dict[str, Any] = {"suspects": [], "outliers": [], "pairs": [], "clusters": []}
    if findings is not None:
        picture = functools.cache(functools.partial(_picture, audited, findings))
        pairs = findings.near_duplicates[:_PAIRS]
        context = {
            "suspects": [picture(row) for row in findings.suspects[:n_shown].tolist()],
            "outliers": [picture(row) for row in findings.outliers[:_OUTLIERS].tolist()],
            "pairs": [(p.distance, picture(p.first), picture(p.second)) for p in pairs],
            "clusters": [
                ClusterRow(
                    number=number,
                    n_images=len(cluster.rows),
                    n_groups=cluster.n_groups,
                    score=cluster.score,
                    interval_95=cluster.interval_95,
                    is_worse=cluster.is_worse,
                    pictures=[picture(row) for row in cluster.rows[:_OF_CLUSTER].tolist()],
                )
                for number, cluster in enumerate(findings.clusters[:_CLUSTERS], start=1)
            ],
        }

    return _template().render(
        **context,
        summary=summary,
        fitted=fitted,
        is_meagre=fitted is not None and fitted.explained < _MEAGRE,
    )


def _picture(audited: Audited, findings: Findings, row: int) -> Picture:
    sample, names = audited.samples[row], audited.data.class_names
    position = np.array([audited.data.index[sample.sample_id]], dtype=np.int64)
    jpeg = encode_thumbnail(audited.data.images(position)[0])
    return Picture(
        sample_id=sample.sample_id,
        path=sample.path,
        group=sample.group,
        split=audited.splits[row],
        label=names[sample.label],
        suggested=names[int(findings.suggested[row])],
        score=float(findings.scores[row]),
        outlier_score=float(findings.outlier_scores[row]),
        base64=base64.b64encode(jpeg).decode(),
        side=min(audited.data.image_size, 224),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = templates("components.audit_labels.templates")
    return environment.get_template("audit.html.jinja")
