"""Tasks for Label Studio: its import document, with pre-annotations, and its labelling interface.

The format is that of https://labelstud.io/guide/predictions: a task has the image's address under
`data`, and `predictions` with one result per answer.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

FROM_NAME, TO_NAME = "class", "image"
_LOCAL = "/data/local-files/?d="


def labelling_interface(class_names: Sequence[str]) -> str:
    """Return the labelling interface (XML) of a project whose images have one of these classes."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in class_names)
    return (
        f'<View>\n  <Image name="{TO_NAME}" value="$image"/>\n'
        f'  <Choices name="{FROM_NAME}" toName="{TO_NAME}" choice="single-radio"'
        f' showInLine="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def task(
    address: str, name: str, predicted: str, score: float, model_version: str
) -> dict[str, Any]:
    """Return the task of one image.

    Args:
        address: Address of the images, which ends in "/" or "=".
        name: Name of the image below it.
        predicted: Class that the annotator finds chosen.
        score: Probability of the class, in [0, 1].
        model_version: What Label Studio calls the model.
    """
    result = {
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "type": "choices",
        "value": {"choices": [predicted]},
    }
    prediction = {"model_version": model_version, "score": round(score, 6), "result": [result]}
    # Label Studio reads a path of its local storage from a query, and an object's name as it is.
    shown = name if address.startswith("s3://") else quote(name)
    return {"data": {"image": address + shown, "path": name}, "predictions": [prediction]}


def address_of(images: str, image_address: str) -> str:
    """Return the address below which Label Studio finds the images of a run's option `images`."""
    given = image_address or (images if images.startswith("s3://") else _LOCAL)
    return given if given.endswith(("/", "=")) else given + "/"
