"""The HTML report: the decision, what explains it, and the images that drove it."""

import base64
import functools
from dataclasses import dataclass
from typing import Any

import jinja2

from components.shared.contracts.listing import printable
from components.shared.contracts.pages import templates


@dataclass(frozen=True)
class DrivingImage:
    """A new image that looks unlike the reference.

    Attributes:
        path: name below the address.
        score: of the cross-fitted classifier.
        margin: of the positive class, or the confidence of a multiclass task.
        quantile: fraction of the reference that is nearer to the training data.
        thumbnail: JPEG.
    """

    path: str
    score: float
    margin: float
    quantile: float
    thumbnail: bytes


@dataclass(frozen=True)
class PageData:
    """What the page shows: drift.json, its decision in one line, and the images, worst first."""

    document: dict[str, Any]
    verdict: str
    images: list[DrivingImage]


def render(data: PageData) -> str:
    """Return the page, one file without scripts and links; every value is escaped."""
    return _template().render(found=data.document, verdict=data.verdict, images=data.images)


def _thumbnail(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


@functools.cache
def _template() -> jinja2.Template:
    environment = templates("components.detect_drift.templates")
    environment.filters |= {
        "thumbnail": _thumbnail,
        "number": _number,
        "percent": _percent,
        "printable": printable,
    }
    return environment.get_template("drift.html.jinja")
